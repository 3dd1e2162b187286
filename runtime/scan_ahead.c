/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the chain of frames ahead of whoever walks it, in several threads.
 *
 * The log is taken in blocks of whole frames, one after the other. Who claims a block hops over the
 * headers to find where it ends, which is quick; then he reads it, checks every frame and
 * decompresses what has room, beside others who do the same with the blocks behind it. The walker
 * gets the frames in their order, and prepares blocks himself when none is ready.
 *
 * Only frames that are valid are handed out. Where anything else stands, or reading fails, or there
 * is no memory, this ends and the walker goes on alone from there: so what is found, and what is
 * said about it, does not depend on the number of threads.
 *
 * `claiming` is held by who looks for the next block, `lock` guards the ring: blocks [taken,
 * claimed) are in it, block number n at n modulo the size of the ring. A block belongs to the one
 * who claimed it until it is ready, then to the walker until he has taken the next one.
 */
#include <pthread.h>
#include <zstd.h>

#include "runtime/error.h"
#include "runtime/log.h"

enum {
    BLOCK = 512 << 10,  /* a block is at least so long, if the log is: with a frame more at most */
    FRAMES = 8192,      /* and has no more frames than that */
    PLAIN = 2 << 20,    /* decompressed bytes of a block; what is more the walker does himself */
    SMALL = 4096,       /* frames up to this size: their headers are read many at a time */
    HEADERS = 64 << 10, /* so many bytes then */
    THREADS_MAX = 64,
    RING_MORE = 2, /* blocks besides one for each thread */
    BLOCK_MEMORY = BLOCK + QR_BODY_MAX + PLAIN + FRAMES * (int)sizeof(struct qr_frame),
};

struct block {
    uint64_t from, to, prev;
    uint8_t *bytes, *plain;
    size_t capacity;
    struct qr_frame *frames;
    size_t count;
    int is_ready, is_broken; /* broken: behind its frames the walker goes on alone */
};

struct qr_ahead {
    const struct qr_log *log;
    pthread_mutex_t claiming;
    uint64_t offset, prev, limit; /* of the next block */
    uint64_t span;                /* of the frame before it */
    uint8_t *headers;             /* [headers_start, + headers_length) of the file */
    uint64_t headers_start;
    size_t headers_length;
    pthread_mutex_t lock;
    pthread_cond_t ready, room;
    struct block *blocks;
    uint64_t block_count, claimed, taken;
    int has_ended, is_stopped;
    pthread_t threads[THREADS_MAX];
    unsigned thread_count;
    struct block *current; /* the walker's */
    size_t next;           /* frame of it */
};

/* --- claiming --- */

/* The header of the frame at `offset`; NULL if it cannot be had. */
static const uint8_t *header_at(struct qr_ahead *a, uint64_t offset)
{
    if (offset < a->headers_start ||
        offset + QR_FRAME_HEADER > a->headers_start + a->headers_length) {
        size_t want = a->span <= SMALL ? HEADERS : QR_FRAME_HEADER;
        int64_t n = a->log->os->pread(a->log->os->context, a->log->file, a->headers, want, offset);
        a->headers_start = offset;
        a->headers_length = n > 0 ? (size_t)n : 0;
        if (n < QR_FRAME_HEADER)
            return NULL;
    }
    return a->headers + (offset - a->headers_start);
}

/* One more frame for the block: 1; 0 if none that is valid stands there. */
static int hop(struct qr_ahead *a)
{
    struct qr_frame frame;
    const uint8_t *header = header_at(a, a->offset);
    if (!header || !qr_frame_parse(a->log, a->offset, header, &frame) || frame.prev != a->prev ||
        a->offset + QR_FRAME_HEADER + frame.stored > a->limit)
        return 0;
    a->span = qr_frame_span(frame.stored);
    a->offset += a->span;
    a->prev = frame.head_sum;
    return 1;
}

/* The next block, for the caller to prepare; NULL if there is none, or no room for it. */
static struct block *claim(struct qr_ahead *a)
{
    pthread_mutex_lock(&a->lock);
    int may = !a->has_ended && !a->is_stopped && a->claimed - a->taken < a->block_count;
    struct block *block = &a->blocks[a->claimed % a->block_count];
    pthread_mutex_unlock(&a->lock);
    if (!may)
        return NULL;
    block->from = a->offset;
    block->prev = a->prev;
    block->is_ready = block->is_broken = 0;
    size_t count = 0;
    int more = 1;
    while (count < FRAMES && a->offset - block->from < BLOCK && (more = hop(a)))
        count++;
    block->to = a->offset;
    pthread_mutex_lock(&a->lock);
    a->has_ended = !more;
    a->claimed += count > 0;
    if (a->has_ended)
        pthread_cond_broadcast(&a->ready);
    pthread_mutex_unlock(&a->lock);
    if (more && a->log->os->read_ahead) /* what comes next, while this is worked on */
        a->log->os->read_ahead(a->log->os->context, a->log->file, a->offset, BLOCK);
    return count ? block : NULL;
}

/* --- preparing --- */

/* Decompresses a frame's body behind those before it, if there is room. 1 valid, 0 not. */
static int open_frame(const struct qr_ahead *a, struct block *block, struct qr_frame *frame,
                      size_t *plain_used)
{
    const uint8_t *stored = block->bytes + (frame->offset - block->from) + QR_FRAME_HEADER;
    uint8_t *plain = NULL;
    size_t room = 0;
    if (frame->flags & QR_FRAME_ZSTD) {
        room = PLAIN - *plain_used;
        if (!block->plain && !(block->plain = qr_malloc(PLAIN)))
            return 1;
        if (ZSTD_getFrameContentSize(stored, frame->stored) >= room)
            return 1;
        plain = block->plain + *plain_used;
    }
    if (qr_frame_open(a->log, frame, stored, &plain, &room) != 1)
        return 0;
    *plain_used += frame->flags & QR_FRAME_ZSTD ? frame->length : 0;
    return 1;
}

static int read_block(const struct qr_ahead *a, struct block *block, size_t length)
{
    if (length > block->capacity) {
        qr_free(block->bytes);
        block->capacity = 0;
        if (!(block->bytes = qr_malloc(length)))
            return 0;
        block->capacity = length;
    }
    return a->log->os->pread(a->log->os->context, a->log->file, block->bytes, length,
                             block->from) == (int64_t)length;
}

/* Everything is checked here, also what claiming has seen: the file may have changed. */
static void prepare(struct qr_ahead *a, struct block *block)
{
    size_t length = (size_t)(block->to - block->from), plain_used = 0;
    uint64_t at = 0, prev = block->prev;
    block->count = 0;
    int good = read_block(a, block, length);
    while (good && at < length) {
        struct qr_frame *frame = &block->frames[block->count];
        good = block->count < FRAMES && length - at >= QR_FRAME_HEADER &&
               qr_frame_parse(a->log, block->from + at, block->bytes + at, frame) &&
               frame->prev == prev && qr_frame_span(frame->stored) <= length - at &&
               open_frame(a, block, frame, &plain_used);
        if (!good)
            break;
        at += qr_frame_span(frame->stored);
        prev = frame->head_sum;
        block->count++;
    }
    pthread_mutex_lock(&a->lock);
    block->is_broken = !good;
    block->is_ready = 1;
    pthread_cond_broadcast(&a->ready);
    pthread_mutex_unlock(&a->lock);
}

static void *work(void *context)
{
    struct qr_ahead *a = context;
    int has_ended = 0;
    while (!has_ended) {
        pthread_mutex_lock(&a->claiming);
        struct block *block = claim(a);
        pthread_mutex_unlock(&a->claiming);
        if (block)
            prepare(a, block);
        pthread_mutex_lock(&a->lock);
        while (!a->has_ended && !a->is_stopped && a->claimed - a->taken >= a->block_count)
            pthread_cond_wait(&a->room, &a->lock);
        has_ended = a->has_ended || a->is_stopped;
        pthread_mutex_unlock(&a->lock);
    }
    return NULL;
}

/* --- the walker --- */

/* Gives the current block back. They are asked to go on when half of the ring is free: waking a
 * thread costs more than much of its work. */
static void give_back(struct qr_ahead *a)
{
    pthread_mutex_lock(&a->lock);
    a->taken++;
    if (a->claimed - a->taken <= a->block_count / 2)
        pthread_cond_broadcast(&a->room);
    pthread_mutex_unlock(&a->lock);
    a->current = NULL;
}

/* Waits for the next block, or helps meanwhile. 1, or 0: there is none. */
static int take(struct qr_ahead *a)
{
    struct block *block;
    for (;;) {
        pthread_mutex_lock(&a->lock);
        block = a->claimed > a->taken ? &a->blocks[a->taken % a->block_count] : NULL;
        int is_ready = block && block->is_ready, has_ended = a->has_ended && !block;
        pthread_mutex_unlock(&a->lock);
        if (is_ready || has_ended)
            break;
        struct block *own = NULL;
        if (pthread_mutex_trylock(&a->claiming) == 0) {
            own = claim(a);
            pthread_mutex_unlock(&a->claiming);
        }
        if (own) {
            prepare(a, own);
            continue;
        }
        pthread_mutex_lock(&a->lock);
        while (!(block = a->claimed > a->taken ? &a->blocks[a->taken % a->block_count] : NULL)
                   ? !a->has_ended
                   : !block->is_ready)
            pthread_cond_wait(&a->ready, &a->lock);
        pthread_mutex_unlock(&a->lock);
    }
    a->current = block;
    a->next = 0;
    return block != NULL;
}

int qr_ahead_next(struct qr_scan *scan, struct qr_frame *frame)
{
    struct qr_ahead *a = scan->ahead;
    while (!a->current || a->next == a->current->count) {
        if (a->current && a->current->is_broken)
            return 0;
        if (a->current)
            give_back(a);
        if (!take(a))
            return 0;
    }
    struct block *block = a->current;
    *frame = block->frames[a->next++];
    if (!frame->body) {
        int rc = qr_frame_open(a->log, frame,
                               block->bytes + (frame->offset - block->from) + QR_FRAME_HEADER,
                               &scan->plain, &scan->plain_capacity);
        if (rc <= 0)
            return rc;
    }
    return 1;
}

void qr_ahead_finish(struct qr_ahead *a)
{
    if (!a)
        return;
    pthread_mutex_lock(&a->lock);
    a->is_stopped = 1;
    pthread_cond_broadcast(&a->room);
    pthread_mutex_unlock(&a->lock);
    for (unsigned i = 0; i < a->thread_count; i++)
        pthread_join(a->threads[i], NULL);
    for (uint64_t i = 0; a->blocks && i < a->block_count; i++) {
        qr_free(a->blocks[i].bytes);
        qr_free(a->blocks[i].plain);
        qr_free(a->blocks[i].frames);
    }
    pthread_cond_destroy(&a->ready);
    pthread_cond_destroy(&a->room);
    pthread_mutex_destroy(&a->lock);
    pthread_mutex_destroy(&a->claiming);
    qr_free(a->blocks);
    qr_free(a->headers);
    qr_free(a);
}

static int ahead_create(struct qr_scan *scan, uint64_t limit, unsigned threads,
                        struct qr_ahead **out)
{
    struct qr_ahead *a = *out = qr_calloc(1, sizeof *a);
    if (!a)
        return 0;
    *a = (struct qr_ahead){.log = scan->log,
                           .offset = scan->offset,
                           .prev = scan->prev,
                           .limit = limit,
                           .block_count = threads + RING_MORE};
    pthread_mutex_init(&a->claiming, NULL);
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->ready, NULL);
    pthread_cond_init(&a->room, NULL);
    a->headers = qr_malloc(HEADERS);
    a->blocks = qr_calloc(a->block_count, sizeof *a->blocks);
    int good = a->headers && a->blocks;
    for (uint64_t i = 0; good && i < a->block_count; i++)
        good = (a->blocks[i].frames = qr_malloc(FRAMES * sizeof(struct qr_frame))) != NULL;
    return good;
}

void qr_scan_read_ahead(struct qr_scan *scan, uint64_t until, int threads, uint64_t max_memory)
{
    uint64_t limit = until && until < scan->limit ? until : scan->limit;
    uint64_t fit = max_memory ? max_memory / 2 / BLOCK_MEMORY : THREADS_MAX + RING_MORE;
    uint64_t blocks = limit > scan->offset ? (limit - scan->offset) / BLOCK : 0;
    unsigned wanted = threads < 1 ? 1 : threads > THREADS_MAX ? THREADS_MAX : (unsigned)threads;
    if (wanted + RING_MORE > fit)
        wanted = fit > RING_MORE ? (unsigned)fit - RING_MORE : 1;
    if (wanted > blocks / 4) /* a thread for less is not worth its start */
        wanted = (unsigned)(blocks / 4);
    if (wanted < 2 || scan->ahead)
        return;
    struct qr_ahead *a;
    if (!ahead_create(scan, limit, wanted, &a)) {
        qr_ahead_finish(a);
        return;
    }
    while (a->thread_count < wanted - 1 &&
           !pthread_create(&a->threads[a->thread_count], NULL, work, a))
        a->thread_count++;
    scan->ahead = a;
}
