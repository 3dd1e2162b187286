/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gives what fuzzing has found worth keeping (corpus.py) to a fuzz target, without the fuzzer; each
 * input as it is, and then spoilt in a few ways, which is a small fuzzer of its own.
 *
 *     corpus FILE
 *
 * QALLOW_SEED repeats a run; QALLOW_MUTATIONS: how many for each input (16).
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/random.h"

enum { LENGTH_MAX = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t state;

static uint64_t below(uint64_t n) { return next_random(&state) % n; }

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

static void *allocate(size_t size)
{
    void *memory = malloc(size ? size : 1);
    if (!memory)
        abort();
    return memory;
}

/* In memory that is exactly as long, for the sanitizers. */
static void give(const uint8_t *bytes, size_t length)
{
    uint8_t *input = allocate(length);
    if (length)
        memcpy(input, bytes, length);
    LLVMFuzzerTestOneInput(input, length);
    free(input);
}

/* Spoils `bytes`, which have room for twice their length, in one way. */
static size_t mutate(uint8_t *bytes, size_t length)
{
    static const uint8_t edges[] = {0, 1, 0x7f, 0x80, 0xfe, 0xff};
    size_t at = below(length), n = 1 + below(length - at), to;
    switch (below(6)) {
    case 0:
        bytes[at] ^= (uint8_t)(1 << below(8));
        return length;
    case 1:
        bytes[at] = edges[below(sizeof edges)];
        return length;
    case 2:
        bytes[at] = (uint8_t)below(256);
        return length;
    case 3: /* a part vanishes */
        memmove(bytes + at, bytes + at + n, length - at - n);
        return length - n;
    case 4: /* a part is there twice */
        memmove(bytes + at + n, bytes + at, length - at);
        return length + n;
    default: /* a part stands over another one */
        to = below(length - n + 1);
        memmove(bytes + to, bytes + at, n);
        return length;
    }
}

static void give_mutations(const uint8_t *bytes, size_t length, uint64_t count)
{
    uint8_t *spoilt = allocate(8 * length);
    for (uint64_t i = 0; i < count && length; i++) {
        size_t now = length;
        memcpy(spoilt, bytes, length);
        for (uint64_t steps = 1 + below(3); steps && now; steps--)
            now = mutate(spoilt, now);
        give(spoilt, now);
    }
    free(spoilt);
}

int main(int argc, char **argv)
{
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    uint64_t mutations = from_environment("QALLOW_MUTATIONS", 16);
    uint32_t length;
    int count = 0;

    state = from_environment("QALLOW_SEED", (uint64_t)time(NULL));
    printf("QALLOW_SEED=%llu\n", (unsigned long long)state);
    fflush(stdout);
    if (!file)
        return perror(argc == 2 ? argv[1] : "FILE"), 1;
    while (fread(&length, sizeof length, 1, file) == 1) {
        uint8_t *input = length <= LENGTH_MAX ? allocate(length) : NULL;
        if (!input || fread(input, 1, length, file) != length)
            return printf("%s is cut off\n", argv[1]), 1;
        give(input, length);
        give_mutations(input, length, mutations);
        free(input);
        count++;
    }
    fclose(file);
    printf("%d inputs, %llu mutations of each\n", count, (unsigned long long)mutations);
    return count == 0;
}
