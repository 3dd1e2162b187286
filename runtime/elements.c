/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the body of a CONTENT frame. Format: docs/formats/tlog.md, "CONTENT body"; in short:
 *
 *     varint length     of the content, 1..2^20
 *     u8     coding     0 PLAIN, 1 PLANES, 2 CHANGES, 3 ALL
 *     PLAIN             the bytes
 *     others            u8 width (1, 2, 4, 8); CHANGES and ALL: u64 base, varint cost,
 *                       u8 values (0 new ones, 1 differences); CHANGES: varint count,
 *                       varint length of the gaps; then the streams
 *     stream            u8 kind (0 bytes, 1 zstd, 2 one byte repeated); 0: the bytes; 1: varint
 *                       stored length, that many bytes; 2: the byte
 *
 * The streams of CHANGES are the gaps and one plane for each byte of an element; else only planes.
 * A gap is the number of elements that stay before one that changes: bytes of 255 add up, the first
 * other one ends it. A difference is zigzag(new - old), both taken as integers of the width: floats
 * that are near each other are near as integers, so most differences have few bits.
 *
 * Valid: the streams are as long as the counts say and nothing follows them; all positions lie in
 * the content; cost >= QR_ELEMENTS_COST + the body's length. All of it is hostile.
 */
#include "runtime/elements.h"

#include <zstd.h>

#include "runtime/error.h"
#include "runtime/format.h"
#include "runtime/os.h"

static int malformed(const char *what)
{
    return qr_fail(QALLOW_E_SERIALIZATION, "a content frame with %s", what);
}

static int width_is_known(unsigned width)
{
    return width == 1 || width == 2 || width == 4 || width == 8;
}

static int parse_based(struct qr_cursor *c, size_t stored, struct qr_elements *e)
{
    e->base = qr_get_u64(c);
    e->cost = qr_get_varint(c);
    e->values = qr_get_u8(c);
    if (e->base == QR_REF_ZERO || e->values > QR_VALUES_DIFFERENCE)
        return malformed("a base or values of no known kind");
    if (e->cost < QR_ELEMENTS_COST + stored || e->cost > QR_ELEMENTS_COST_MAX)
        return malformed("a cost that is not its own");
    uint64_t count = e->coding == QR_CODING_CHANGES ? qr_get_varint(c) : 0;
    if (count > e->length / e->width)
        return malformed("more changes than elements");
    e->count = (uint32_t)count;
    return 0;
}

int qr_elements_parse(const uint8_t *body, size_t stored, struct qr_elements *e)
{
    struct qr_cursor c = qr_cursor(body, stored);
    uint64_t length = qr_get_varint(&c);
    *e = (struct qr_elements){.coding = qr_get_u8(&c), .width = 1, .base = QR_REF_ZERO};
    if (c.bad || length == 0 || length > QR_BODY_MAX || e->coding > QR_CODING_ALL)
        return malformed("no length or coding that is known");
    e->length = (uint32_t)length;
    if (e->coding != QR_CODING_PLAIN) {
        e->width = qr_get_u8(&c);
        if (!width_is_known(e->width) || length % e->width)
            return malformed("elements of no known width");
    }
    int rc = e->coding >= QR_CODING_CHANGES ? parse_based(&c, stored, e) : 0;
    if (rc == 0 && c.bad)
        rc = malformed("a head that is cut off");
    e->streams = c;
    return rc;
}

/* --- streams --- */

/* The next stream, which has n bytes: where it stands, or decoded into `to`. NULL: it is not so. */
static const uint8_t *get_stream(struct qr_cursor *c, struct qr_elements_scratch *scratch,
                                 uint8_t *to, size_t n)
{
    unsigned kind = qr_get_u8(c);
    if (kind == 0)
        return qr_get_bytes(c, n);
    if (kind == 2) {
        memset(to, qr_get_u8(c), n);
        return c->bad ? NULL : to;
    }
    size_t stored = kind == 1 ? (size_t)qr_get_varint(c) : 0;
    const uint8_t *bytes = qr_get_bytes(c, stored);
    if (kind != 1 || !bytes || ZSTD_getFrameContentSize(bytes, stored) != n ||
        (!scratch->decompressor && !(scratch->decompressor = ZSTD_createDCtx())) ||
        ZSTD_decompressDCtx(scratch->decompressor, to, n, bytes, stored) != n)
        return NULL;
    return to;
}

void qr_elements_scratch_finish(struct qr_elements_scratch *scratch)
{
    qr_free(scratch->bytes);
    ZSTD_freeDCtx(scratch->decompressor);
    *scratch = (struct qr_elements_scratch){.bytes = NULL};
}

static uint8_t *room(struct qr_elements_scratch *scratch, size_t need)
{
    if (need > scratch->capacity) {
        uint8_t *grown = qr_realloc(scratch->bytes, need);
        if (!grown)
            return NULL;
        scratch->bytes = grown;
        scratch->capacity = need;
    }
    return scratch->bytes;
}

/* The planes of `count` elements. 0: they are not there. */
static int get_planes(struct qr_cursor *c, struct qr_elements_scratch *scratch, uint8_t *to,
                      unsigned width, size_t count, const uint8_t *planes[8])
{
    for (unsigned i = 0; i < width; i++) {
        planes[i] = get_stream(c, scratch, to + i * count, count);
        if (!planes[i])
            return 0;
    }
    return !c->bad && c->at == c->end;
}

/* --- elements of one width --- */

/* For each width: putting elements together from planes, adding differences to the base. The
 * loops over planes have no branch, so that the compiler makes vectors of them. */
#define DEFINE(T, W)                                                                               \
    static inline T value_##T(const uint8_t *const planes[8], size_t i)                            \
    {                                                                                              \
        T v = planes[0][i];                                                                        \
        for (unsigned b = 1; b < (W); b++)                                                         \
            v = (T)(v | (T)((uint64_t)planes[b][i] << 8 * b));                                     \
        return v;                                                                                  \
    }                                                                                              \
    static inline T unzigzag_##T(T v) { return (T)((T)(v >> 1) ^ (T)(0 - (v & 1))); }              \
    static void join_##T(uint8_t *content, const uint8_t *const planes[8], size_t count)           \
    {                                                                                              \
        for (size_t i = 0; i < count; i++) {                                                       \
            T v = value_##T(planes, i);                                                            \
            memcpy(content + i * (W), &v, (W));                                                    \
        }                                                                                          \
    }                                                                                              \
    static void add_##T(uint8_t *content, const uint8_t *const planes[8], size_t count)            \
    {                                                                                              \
        for (size_t i = 0; i < count; i++) {                                                       \
            T v;                                                                                   \
            memcpy(&v, content + i * (W), (W));                                                    \
            v = (T)(v + unzigzag_##T(value_##T(planes, i)));                                       \
            memcpy(content + i * (W), &v, (W));                                                    \
        }                                                                                          \
    }                                                                                              \
    /* 1: all changes lie in the content, and all gaps were used. */                               \
    static int change_##T(uint8_t *content, size_t elements, const uint8_t *gap,                   \
                          const uint8_t *gaps_end, const uint8_t *const planes[8], size_t count,   \
                          int is_difference)                                                       \
    {                                                                                              \
        size_t at = 0;                                                                             \
        for (size_t i = 0; i < count; i++, at++) {                                                 \
            while (gap < gaps_end && *gap == 255)                                                  \
                at += 255, gap++;                                                                  \
            if (gap == gaps_end || (at += *gap++) >= elements)                                     \
                return 0;                                                                          \
            T v = value_##T(planes, i), old;                                                       \
            memcpy(&old, content + at * (W), (W));                                                 \
            v = is_difference ? (T)(old + unzigzag_##T(v)) : v;                                    \
            memcpy(content + at * (W), &v, (W));                                                   \
        }                                                                                          \
        return gap == gaps_end;                                                                    \
    }
DEFINE(uint8_t, 1)
DEFINE(uint16_t, 2)
DEFINE(uint32_t, 4)
DEFINE(uint64_t, 8)

/* The function of a family for a width. */
#define FOR_WIDTH(width, name)                                                                     \
    ((width) == 1   ? name##_uint8_t                                                               \
     : (width) == 2 ? name##_uint16_t                                                              \
     : (width) == 4 ? name##_uint32_t                                                              \
                    : name##_uint64_t)

static int decode_changes(const struct qr_elements *e, uint8_t *content,
                          struct qr_elements_scratch *scratch)
{
    struct qr_cursor c = e->streams;
    const uint8_t *planes[8] = {NULL};
    uint64_t gaps_length = qr_get_varint(&c);
    if (c.bad || gaps_length > QR_BODY_MAX)
        return malformed("gaps beyond its content");
    uint8_t *to = room(scratch, gaps_length + (size_t)e->count * e->width + 1);
    if (!to)
        return qr_fail(QALLOW_E_NO_MEMORY, "a content frame");
    const uint8_t *gaps = get_stream(&c, scratch, to, (size_t)gaps_length);
    if (!gaps || !get_planes(&c, scratch, to + gaps_length, e->width, e->count, planes) ||
        !FOR_WIDTH(e->width, change)(content, e->length / e->width, gaps, gaps + gaps_length,
                                     planes, e->count, e->values == QR_VALUES_DIFFERENCE))
        return malformed("changes that are not in order");
    return 0;
}

int qr_elements_decode(const struct qr_elements *e, uint8_t *content,
                       struct qr_elements_scratch *scratch)
{
    struct qr_cursor c = e->streams;
    const uint8_t *planes[8] = {NULL};
    if (e->coding == QR_CODING_CHANGES)
        return decode_changes(e, content, scratch);
    if (e->coding == QR_CODING_PLAIN) {
        if (qr_left(&c) != e->length)
            return malformed("more or less bytes than it says");
        memcpy(content, c.at, e->length);
        return 0;
    }
    uint8_t *to = room(scratch, e->length);
    if (!to)
        return qr_fail(QALLOW_E_NO_MEMORY, "a content frame");
    if (!get_planes(&c, scratch, to, e->width, e->length / e->width, planes))
        return malformed("planes that are not in order");
    if (e->coding == QR_CODING_ALL && e->values == QR_VALUES_DIFFERENCE)
        FOR_WIDTH(e->width, add)(content, planes, e->length / e->width);
    else
        FOR_WIDTH(e->width, join)(content, planes, e->length / e->width);
    return 0;
}
