/* SPDX-License-Identifier: Apache-2.0 */
/* A growing string of bytes. */
#ifndef QR_ARENA_H
#define QR_ARENA_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "runtime/os.h"

/* Zero-initialise; qr_free(bytes). */
struct qr_arena {
    uint8_t *bytes;
    size_t length, capacity;
};

/* Appends `length` bytes, or room for them: where they are, or SIZE_MAX if there is no memory. */
static inline size_t qr_arena_put(struct qr_arena *arena, const void *bytes_or_null, size_t length)
{
    size_t at = arena->length;
    if (length > arena->capacity - at) {
        size_t capacity = arena->capacity ? arena->capacity : 256;
        while (capacity - at < length) {
            if (capacity > SIZE_MAX / 2)
                return SIZE_MAX;
            capacity *= 2;
        }
        uint8_t *grown = qr_realloc(arena->bytes, capacity);
        if (!grown)
            return SIZE_MAX;
        arena->bytes = grown;
        arena->capacity = capacity;
    }
    if (bytes_or_null && length)
        memcpy(arena->bytes + at, bytes_or_null, length);
    arena->length += length;
    return at;
}

#endif
