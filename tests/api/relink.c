/* SPDX-License-Identifier: Apache-2.0 */
/* Written from docs/formats/tlog.md, not with the library's own code. */
#include "tests/api/relink.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { FIRST_FRAME = 8192, FRAME_HEADER = 40, UUID_AT = 16, COMMIT = 2 };

static uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* A number that is written longer than it need be. */
static void spoil_varint(uint8_t *body)
{
    body[0] = 0x80;
    body[1] = 0;
}

void relink_with_senseless_commit(const char *log)
{
    FILE *file = fopen(log, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long size = ftell(file);
    uint8_t *bytes = malloc((size_t)size);
    rewind(file);
    assert_int_equal(fread(bytes, 1, (size_t)size, file), size);

    uint64_t prev = 0;
    size_t at = FIRST_FRAME, frames = 0;
    while (at + FRAME_HEADER <= (size_t)size && bytes[at] == 0x46 && bytes[at + 1] == 0x51) {
        uint8_t *h = bytes + at;
        uint32_t length;
        memcpy(&length, h + 4, sizeof length);
        if (h[2] == COMMIT)
            spoil_varint(h + FRAME_HEADER + length - 1 - h[FRAME_HEADER + length - 1]);
        uint64_t seed = XXH3_64bits_withSeed(bytes + UUID_AT, 16, at);
        uint64_t body_sum = XXH3_64bits_withSeed(h + FRAME_HEADER, length, seed);
        memcpy(h + 8, &prev, 8);
        memcpy(h + 24, &body_sum, 8);
        uint64_t head_sum = XXH3_64bits_withSeed(h, 32, seed);
        memcpy(h + 32, &head_sum, 8);
        prev = load64(h + 32);
        at += (FRAME_HEADER + length + 7u) / 8 * 8;
        frames++;
    }
    assert_true(frames >= 2); /* COMMIT and CLOSE */
    rewind(file);
    assert_int_equal(fwrite(bytes, 1, (size_t)size, file), size);
    assert_int_equal(fclose(file), 0);
    free(bytes);
}
