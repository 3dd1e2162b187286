/* SPDX-License-Identifier: Apache-2.0 */
/* Little-endian loads and stores, LEB128 varints, and a bounds-checked cursor for hostile bytes. */
#ifndef QR_BYTES_H
#define QR_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t qr_load32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline uint64_t qr_load64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void qr_store32(void *p, uint32_t v) { memcpy(p, &v, sizeof v); }
static inline void qr_store64(void *p, uint64_t v) { memcpy(p, &v, sizeof v); }
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Qallow's formats are little-endian and this code has only been written for such machines"
#endif

enum { QR_VARINT_MAX = 10 }; /* bytes of the longest varint */

/* Writes v at p (at most QR_VARINT_MAX bytes) and returns the byte after it. */
static inline uint8_t *qr_put_varint(uint8_t *p, uint64_t v)
{
    while (v >= 0x80) {
        *p++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    return p;
}
static inline size_t qr_varint_length(uint64_t v)
{
    size_t n = 1;
    while (v >= 0x80) {
        v >>= 7;
        n++;
    }
    return n;
}
static inline uint64_t qr_zigzag(int64_t v) { return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63); }
static inline int64_t qr_unzigzag(uint64_t v) { return (int64_t)(v >> 1) ^ -(int64_t)(v & 1); }

/* A reading position in bytes that nobody vouches for. Every getter checks the remaining length;
 * after the first failure `bad` stays set and all getters return 0 / NULL. */
struct qr_cursor {
    const uint8_t *at, *end;
    int bad;
};
static inline struct qr_cursor qr_cursor(const void *p, size_t n)
{
    struct qr_cursor c = {(const uint8_t *)p, (const uint8_t *)p + n, 0};
    return c;
}
static inline size_t qr_left(const struct qr_cursor *c) { return (size_t)(c->end - c->at); }
static inline const uint8_t *qr_get_bytes(struct qr_cursor *c, uint64_t n)
{
    const uint8_t *p = c->at;
    if (c->bad || n > qr_left(c)) {
        c->bad = 1;
        return NULL;
    }
    c->at += n;
    return p;
}
static inline uint8_t qr_get_u8(struct qr_cursor *c)
{
    const uint8_t *p = qr_get_bytes(c, 1);
    return p ? *p : 0;
}
static inline uint64_t qr_get_u64(struct qr_cursor *c)
{
    const uint8_t *p = qr_get_bytes(c, 8);
    return p ? qr_load64(p) : 0;
}
/* Any varint. Apart, so that what is inlined is short. */
__attribute__((noinline, unused)) static uint64_t qr_get_long_varint(struct qr_cursor *c)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (c->bad || c->at == c->end)
            break;
        uint8_t b = *c->at++;
        if (shift == 63 && b > 1)
            break;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80)) {
            if (b == 0 && shift != 0)
                break;
            return v;
        }
    }
    c->bad = 1;
    return 0;
}
/* Refuses encodings that are longer than needed or exceed 64 bits: one value, one spelling. */
static inline uint64_t qr_get_varint(struct qr_cursor *c)
{
    if (qr_left(c) >= 2 && !c->bad) { /* most have one byte or two */
        uint8_t first = c->at[0], second = c->at[1];
        if (first < 0x80) {
            c->at += 1;
            return first;
        }
        if (second > 0 && second < 0x80) {
            c->at += 2;
            return (uint64_t)second << 7 | (first & 0x7f);
        }
    }
    return qr_get_long_varint(c);
}

#endif
