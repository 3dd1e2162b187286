/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing the body of a CONTENT frame (format: runtime/elements.c).
 *
 * With a base, the elements that differ are found with the diff kernel. If they are at most half of
 * all, they are written as gaps and planes of their values, else all elements as planes of their
 * differences. Whether new values or differences are smaller is estimated from a sample of the
 * changes; whether a stream is worth compressing from its histogram, because on the few thousand
 * bytes of a typical stream zstd costs more than everything else together, at every reading again.
 *
 * Without a base, or when reading the chain would cost more than the content does, the content is
 * written whole. Planes of floats save a sixth to a quarter and cost ten times the time of plain
 * bytes, at every reading again; so only what saves a third is compressed.
 * (docs/performance/tensors.md)
 */
#include <zstd.h>

#include "backend/kernels.h"
#include "runtime/elements.h"
#include "runtime/error.h"
#include "runtime/format.h"
#include "runtime/os.h"

enum {
    ELEMENTS_MAX = QR_BODY_MAX / 2,
    HEAD_MAX = 64,
    STREAM_HEAD_MAX = 4,
    SAMPLE = 1024, /* changes looked at to choose between values and differences */
    COMPRESS_MIN = 48,
    BLOCKS_PER_CELL = QB_CELL / QB_BLOCK,
    /* Compressing a stream must save so much, and this part of the body; or most of the stream, or
     * a quarter of the body. */
    WORTH_BYTES = 1024,
    WORTH_PART = 16,
};

struct qr_elements_encoder {
    int level;
    ZSTD_CCtx *compressor;
    uint32_t *blocks; /* in which bytes differ; at the end the cells */
    uint64_t *masks;  /* of each block: which bytes */
    size_t cell_count;
    uint32_t *positions; /* of changed elements */
    uint8_t *streams;    /* gaps and planes, or planes only */
    uint8_t *body;
    size_t body_capacity, at;
    uint16_t log2_of[4097]; /* log2(i) * 2^12, for estimates */
};

void qr_elements_encoder_destroy(struct qr_elements_encoder *e)
{
    if (!e)
        return;
    ZSTD_freeCCtx(e->compressor);
    qr_free(e->blocks);
    qr_free(e->masks);
    qr_free(e->positions);
    qr_free(e->streams);
    qr_free(e->body);
    qr_free(e);
}

/* log2(x) * 4096, rounded down. */
static uint16_t log2_fixed(uint32_t x)
{
    unsigned whole = 31u - (unsigned)__builtin_clz(x), bits = whole;
    uint64_t mantissa = (uint64_t)x << (31 - whole); /* 1 to 2, in 2^-31 */
    for (int i = 0; i < 12; i++) {
        mantissa = mantissa * mantissa >> 31;
        bits = bits << 1 | (mantissa >> 32 != 0);
        mantissa >>= mantissa >> 32;
    }
    return (uint16_t)bits;
}

int qr_elements_encoder_create(int compress_level, struct qr_elements_encoder **out)
{
    struct qr_elements_encoder *e = qr_calloc(1, sizeof *e);
    if (e) {
        e->level = compress_level;
        e->compressor = ZSTD_createCCtx();
        e->blocks = qr_malloc((ELEMENTS_MAX / QB_BLOCK + 1) * sizeof *e->blocks);
        e->masks = qr_malloc(ELEMENTS_MAX / QB_BLOCK * sizeof *e->masks);
        e->positions = qr_malloc(ELEMENTS_MAX * sizeof *e->positions);
        e->streams = qr_malloc(3 * (size_t)ELEMENTS_MAX); /* gaps, planes */
        e->body_capacity = HEAD_MAX + 2 * (size_t)ELEMENTS_MAX + ZSTD_compressBound(ELEMENTS_MAX);
        e->body = qr_malloc(e->body_capacity);
    }
    if (!e || !e->compressor || !e->blocks || !e->masks || !e->positions || !e->streams ||
        !e->body) {
        qr_elements_encoder_destroy(e);
        return qr_fail(QALLOW_E_NO_MEMORY, "an encoder of elements");
    }
    for (unsigned i = 1; i <= 4096; i++)
        e->log2_of[i] = log2_fixed(i);
    *out = e;
    return 0;
}

const uint32_t *qr_elements_changed(const struct qr_elements_encoder *e, size_t *count)
{
    *count = e->cell_count;
    return e->blocks;
}

/* --- streams --- */

/* The bytes that an ideal coder of single bytes would need, roughly. */
static size_t estimate(const struct qr_elements_encoder *e, const uint8_t *bytes, size_t n)
{
    uint32_t counts[4][256] = {{0}};
    uint64_t bits = 0;
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (unsigned k = 0; k < 4; k++)
            counts[k][bytes[i + k]]++;
    for (; i < n; i++)
        counts[0][bytes[i]]++;
    unsigned shift = 0; /* so that the largest count is in the table */
    while (n >> shift > 4096)
        shift++;
    for (unsigned b = 0; b < 256; b++) {
        uint32_t count = counts[0][b] + counts[1][b] + counts[2][b] + counts[3][b];
        uint32_t scaled = count >> shift ? count >> shift : 1;
        if (count)
            bits += (uint64_t)count * (e->log2_of[n >> shift] - e->log2_of[scaled]);
    }
    return (size_t)(bits >> 15);
}

static int all_the_same(const uint8_t *bytes, size_t n)
{
    return n > 2 && qb_kernels()->common_prefix(bytes, bytes + 1, n - 1) == n - 1;
}

/* Is it worth zstd's time, at every reading, to save so many of n bytes of a body? */
static int is_worth_it(size_t saved, size_t n, size_t all)
{
    return saved <= n && (saved > n / 3 * 2 || saved > all / 4 ||
                          (saved > WORTH_BYTES && saved > all / WORTH_PART));
}

/* Appends one stream to a body that takes `all` bytes without compression. */
static void put_stream(struct qr_elements_encoder *e, const uint8_t *bytes, size_t n, size_t all)
{
    uint8_t *p = e->body + e->at;
    if (all_the_same(bytes, n)) {
        *p++ = 2;
        *p++ = *bytes;
        e->at += 2;
        return;
    }
    if (e->level && n >= COMPRESS_MIN && is_worth_it(n - estimate(e, bytes, n), n, all)) {
        uint8_t *to = p + 1 + STREAM_HEAD_MAX;
        size_t got = ZSTD_compressCCtx(e->compressor, to, e->body_capacity - (size_t)(to - e->body),
                                       bytes, n, e->level);
        if (!ZSTD_isError(got) && got + 1 + STREAM_HEAD_MAX < n) {
            *p++ = 1;
            p = qr_put_varint(p, got);
            memmove(p, to, got);
            e->at = (size_t)(p - e->body) + got;
            return;
        }
    }
    *p++ = 0;
    if (n)
        memcpy(p, bytes, n);
    e->at += 1 + n;
}

static void put_planes(struct qr_elements_encoder *e, const uint8_t *planes, unsigned width,
                       size_t count, size_t all)
{
    for (unsigned i = 0; i < width; i++)
        put_stream(e, planes + i * count, count, all);
}

/* --- elements of one width --- */

#define DEFINE(T, W)                                                                               \
    static inline T load_##T(const uint8_t *p, size_t i)                                           \
    {                                                                                              \
        T v;                                                                                       \
        memcpy(&v, p + i * (W), (W));                                                              \
        return v;                                                                                  \
    }                                                                                              \
    static inline T difference_##T(T new_, T old)                                                  \
    {                                                                                              \
        T d = (T)(new_ - old);                                                                     \
        return (T)((T)(d << 1) ^ (T)(0 - (T)(d >> (8 * (W)-1))));                                  \
    }                                                                                              \
    static inline void store_##T(uint8_t *planes, size_t count, size_t i, T v)                     \
    {                                                                                              \
        for (unsigned b = 0; b < (W); b++)                                                         \
            planes[b * count + i] = (uint8_t)((uint64_t)v >> 8 * b);                               \
    }                                                                                              \
    /* Planes of the elements at some positions: new values, or differences from the old ones. */  \
    static void pick_##T(const struct qr_elements_job *job, const uint32_t *at, size_t count,      \
                         int is_difference, uint8_t *planes)                                       \
    {                                                                                              \
        for (size_t i = 0; i < count; i++) {                                                       \
            T v = load_##T(job->new_, at[i]);                                                      \
            if (is_difference)                                                                     \
                v = difference_##T(v, load_##T(job->old, at[i]));                                  \
            store_##T(planes, count, i, v);                                                        \
        }                                                                                          \
    }                                                                                              \
    static void split_##T(const struct qr_elements_job *job, size_t count, int is_difference,      \
                          uint8_t *planes)                                                         \
    {                                                                                              \
        for (size_t i = 0; i < count; i++) {                                                       \
            T v = load_##T(job->new_, i);                                                          \
            if (is_difference)                                                                     \
                v = difference_##T(v, load_##T(job->old, i));                                      \
            store_##T(planes, count, i, v);                                                        \
        }                                                                                          \
    }
DEFINE(uint8_t, 1)
DEFINE(uint16_t, 2)
DEFINE(uint32_t, 4)
DEFINE(uint64_t, 8)

#define FOR_WIDTH(width, name)                                                                     \
    ((width) == 1   ? name##_uint8_t                                                               \
     : (width) == 2 ? name##_uint16_t                                                              \
     : (width) == 4 ? name##_uint32_t                                                              \
                    : name##_uint64_t)

/* --- what changed --- */

/* From a bit for each byte to one for each element, at its first byte. */
static uint64_t by_element(uint64_t bits, unsigned width)
{
    if (width >= 2)
        bits = (bits | bits >> 1) & UINT64_C(0x5555555555555555);
    if (width >= 4)
        bits = (bits | bits >> 2) & UINT64_C(0x1111111111111111);
    if (width >= 8)
        bits = (bits | bits >> 4) & UINT64_C(0x0101010101010101);
    return bits;
}

/* From blocks to the cells that they are in, in their place. How many are in one cannot be
 * foreseen, so there is no branch: a cell is overwritten until its last block. */
static void find_cells(struct qr_elements_encoder *e, size_t block_count)
{
    e->blocks[block_count] = UINT32_MAX;
    uint32_t *cells = e->blocks, next = e->blocks[0] / BLOCKS_PER_CELL;
    size_t count = 0;
    for (size_t i = 0; i < block_count; i++) {
        uint32_t cell = next;
        next = e->blocks[i + 1] / BLOCKS_PER_CELL;
        cells[count] = cell;
        count += next != cell;
    }
    e->cell_count = count;
}

/* The positions of the elements that differ. */
static size_t find_changed(struct qr_elements_encoder *e, const struct qr_elements_job *job)
{
    unsigned shift = (unsigned)__builtin_ctz(job->width);
    size_t count = 0, block_count = qb_kernels()->diff_blocks(job->old, job->new_, job->length,
                                                              e->blocks, e->masks);
    for (size_t i = 0; i < block_count; i++) {
        uint32_t first = e->blocks[i] * QB_BLOCK;
        uint64_t bits = by_element(e->masks[i], job->width);
        for (; bits; bits &= bits - 1)
            e->positions[count++] = (first + (unsigned)__builtin_ctzll(bits)) >> shift;
    }
    find_cells(e, block_count);
    return count;
}

static size_t put_gaps(const uint32_t *positions, size_t count, uint8_t *to)
{
    uint8_t *p = to;
    uint32_t at = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t gap = positions[i] - at;
        for (; gap >= 255; gap -= 255)
            *p++ = 255;
        *p++ = (uint8_t)gap;
        at = positions[i] + 1;
    }
    return (size_t)(p - to);
}

/* 1 if differences of the elements at these positions take less room than their new values. */
static int differences_are_smaller(const struct qr_elements_encoder *e,
                                   const struct qr_elements_job *job, const uint32_t *positions,
                                   size_t count)
{
    size_t sizes[2] = {0, 0};
    count = count < SAMPLE ? count : SAMPLE;
    for (int kind = 0; kind < 2; kind++) {
        FOR_WIDTH(job->width, pick)(job, positions, count, kind, e->streams);
        for (unsigned b = 0; b < job->width; b++)
            sizes[kind] += estimate(e, e->streams + b * count, count);
    }
    return sizes[1] <= sizes[0];
}

/* --- bodies --- */

static void begin(struct qr_elements_encoder *e, const struct qr_elements_job *job,
                  enum qr_coding coding)
{
    uint8_t *p = qr_put_varint(e->body, job->length);
    *p++ = (uint8_t)coding;
    if (coding != QR_CODING_PLAIN)
        *p++ = (uint8_t)job->width;
    e->at = (size_t)(p - e->body);
}

static void put_number(struct qr_elements_encoder *e, uint64_t number)
{
    e->at = (size_t)(qr_put_varint(e->body + e->at, number) - e->body);
}

/* The cost stands before what it is the sum of: what is stored is only known at the end. So what
 * is stored behind it is moved to where a cost of that length ends. */
static uint64_t put_cost(struct qr_elements_encoder *e, const struct qr_elements_job *job,
                         size_t head, size_t work_of_changes)
{
    uint64_t work = job->base_cost + QR_ELEMENTS_COST + job->length / 64 + work_of_changes;
    uint64_t cost = work + e->at + QR_VARINT_MAX;
    size_t length = qr_varint_length(cost);
    memmove(e->body + head + length, e->body + head, e->at - head);
    qr_put_varint(e->body + head, cost);
    e->at += length;
    return cost;
}

static uint64_t encode_based(struct qr_elements_encoder *e, const struct qr_elements_job *job,
                             size_t count)
{
    size_t elements = job->length / job->width;
    int is_sparse = count <= elements / 2;
    int is_difference = differences_are_smaller(e, job, e->positions, count);
    begin(e, job, is_sparse ? QR_CODING_CHANGES : QR_CODING_ALL);
    qr_store64(e->body + e->at, job->base);
    size_t head = e->at += 8;
    e->body[e->at++] = is_difference ? QR_VALUES_DIFFERENCE : QR_VALUES_NEW;
    if (is_sparse) {
        size_t gaps = put_gaps(e->positions, count, e->streams);
        put_number(e, count);
        put_number(e, gaps);
        size_t all = gaps + count * job->width;
        put_stream(e, e->streams, gaps, all);
        FOR_WIDTH(job->width, pick)(job, e->positions, count, is_difference, e->streams);
        put_planes(e, e->streams, job->width, count, all);
    } else {
        FOR_WIDTH(job->width, split)(job, elements, is_difference, e->streams);
        put_planes(e, e->streams, job->width, elements, job->length);
    }
    return put_cost(e, job, head, is_sparse ? count : job->length / 8);
}

static void encode_whole(struct qr_elements_encoder *e, const struct qr_elements_job *job)
{
    size_t elements = job->length / job->width, saved = 0;
    if (e->level) {
        FOR_WIDTH(job->width, split)(job, elements, 0, e->streams);
        for (unsigned b = 0; b < job->width; b++) {
            size_t size = estimate(e, e->streams + b * elements, elements);
            saved += size < elements ? elements - size : 0;
        }
    }
    if (saved > job->length / 3) {
        begin(e, job, QR_CODING_PLANES);
        put_planes(e, e->streams, job->width, elements, job->length);
        return;
    }
    begin(e, job, QR_CODING_PLAIN);
    memcpy(e->body + e->at, job->new_, job->length);
    e->at += job->length;
}

int qr_elements_encode(struct qr_elements_encoder *e, const struct qr_elements_job *job,
                       const uint8_t **body, size_t *size)
{
    qr_assert(job->length && job->length <= ELEMENTS_MAX && job->length % job->width == 0);
    size_t count = job->old ? find_changed(e, job) : 0;
    *body = e->body;
    *size = 0;
    if (job->old && count == 0)
        return 0;
    e->at = 0;
    if (!job->old || encode_based(e, job, count) > job->cost_limit ||
        e->at > job->length - job->length / 8)
        encode_whole(e, job);
    *size = e->at;
    return 0;
}
