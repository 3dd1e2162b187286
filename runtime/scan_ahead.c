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
 * Where content goes to memory, the walker does not write it: he leaves with each block the changes
 * of bytes that stand in it, in one list for each *share* of the pages. Threads apply them, a share
 * by one thread at a time and in the order of the blocks; so changes of a page keep their order,
 * and nothing else about them matters. What needs bytes at once settles first: all lists are
 * applied.
 *
 * `lock` guards the ring: blocks [retired, claimed) are in it, block number n at n modulo the size
 * of the ring; [retired, taken) have been walked through and have lists that are not applied yet. A
 * block belongs to the one who claimed it until it is ready, then to the walker until he has taken
 * the next one; then each list to who applies its share. Who claims has what finds the next block.
 */
#include <pthread.h>
#include <zstd.h>

#include "runtime/apply_bytes.h"
#include "runtime/error.h"
#include "runtime/log.h"
#include "runtime/os.h"

enum {
    BLOCK = 256 << 10,  /* a block is at least so long, if the log is: with a frame more at most */
    FRAMES = 8192,      /* and has no more frames than that */
    PLAIN = 2 << 20,    /* decompressed bytes of a block; what is more the walker does himself */
    SMALL = 4096,       /* frames up to this size: their headers are read many at a time */
    HEADERS = 64 << 10, /* so many bytes then */
    THREADS_MAX = 64,
    RING_MORE = 2,   /* blocks besides one for each thread, or two if there are lists of changes */
    LISTS = 1 << 20, /* bytes of changes in a block, as far as counted */
    BLOCK_MEMORY = BLOCK + QR_BODY_MAX + PLAIN + FRAMES * (int)sizeof(struct qr_frame) + LISTS,
};

struct list {
    struct qr_change *items;
    size_t count, capacity;
};

struct block {
    uint64_t from, to, prev;
    uint8_t *bytes, *plain;
    size_t capacity;
    struct qr_frame *frames;
    size_t count;
    int is_ready, is_broken; /* broken: behind its frames the walker goes on alone */
    struct list *lists;      /* one for each share */
};

struct share {
    uint64_t applied; /* blocks */
    int is_taken;     /* by a thread */
};

struct qr_ahead {
    const struct qr_log *log;
    uint64_t offset, prev, limit; /* of the next block */
    uint64_t span;                /* of the frame before it */
    uint8_t *headers;             /* [headers_start, + headers_length) of the file */
    uint64_t headers_start;
    size_t headers_length;
    pthread_mutex_t lock;
    pthread_cond_t ready, room; /* for the walker, for the others: there may be something to do */
    struct block *blocks;
    uint64_t block_count, claimed, taken, retired;
    uint64_t enough; /* blocks that the walker does not run out of so soon */
    struct share *shares;
    unsigned share_count; /* 0: no changes come */
    int is_claiming, has_ended, is_stopped;
    int rc; /* of the first change that failed */
    pthread_t threads[THREADS_MAX];
    unsigned thread_count;
    struct block *current; /* the walker's */
    size_t next;           /* frame of it */
    int is_stable;         /* the last frame handed out stands in it */
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

/* The next block, for the caller, who claims, to prepare; NULL if there is none. */
static struct block *claim(struct qr_ahead *a)
{
    struct block *block = &a->blocks[a->claimed % a->block_count];
    block->from = a->offset;
    block->prev = a->prev;
    block->is_ready = block->is_broken = 0;
    size_t count = 0;
    int more = 1;
    while (count < FRAMES && a->offset - block->from < BLOCK && (more = hop(a)))
        count++;
    block->to = a->offset;
    uint64_t behind = a->offset;
    pthread_mutex_lock(&a->lock);
    a->is_claiming = 0;
    a->has_ended = !more;
    a->claimed += count > 0;
    pthread_cond_broadcast(&a->ready);
    pthread_cond_broadcast(&a->room);
    pthread_mutex_unlock(&a->lock);
    if (more && a->log->os->read_ahead) /* what comes next, while this is worked on */
        a->log->os->read_ahead(a->log->os->context, a->log->file, behind, BLOCK);
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

/* --- applying --- */

/* What each change touches is fetched some changes before. */
static int apply_list(struct list *list)
{
    enum { OPERATIONS_AHEAD = 16, BYTES_AHEAD = 10 };
    int rc = 0;
    for (size_t i = 0; i < list->count && !rc; i++) {
        if (i + OPERATIONS_AHEAD < list->count)
            qr_change_fetch_operations(&list->items[i + OPERATIONS_AHEAD]);
        if (i + BYTES_AHEAD < list->count)
            qr_change_fetch_bytes(&list->items[i + BYTES_AHEAD]);
        rc = qr_change_apply(&list->items[i]);
    }
    list->count = 0;
    return rc;
}

/* Blocks whose lists have all been applied may be used again. */
static void retire(struct qr_ahead *a)
{
    uint64_t all = a->taken;
    for (unsigned i = 0; i < a->share_count; i++)
        all = a->shares[i].applied < all ? a->shares[i].applied : all;
    if (all == a->retired)
        return;
    a->retired = all;
    pthread_cond_broadcast(&a->ready);
    pthread_cond_broadcast(&a->room);
}

/* A share that the caller has taken: its lists, as far as the walker has come. */
static void apply_share(struct qr_ahead *a, struct share *share)
{
    for (int more = 1; more;) { /* (given back, it may be another thread's at once) */
        struct block *block = &a->blocks[share->applied % a->block_count];
        int rc = apply_list(&block->lists[share - a->shares]);
        pthread_mutex_lock(&a->lock);
        a->rc = a->rc ? a->rc : rc;
        share->applied++;
        more = share->is_taken = share->applied < a->taken && !a->is_stopped;
        retire(a);
        pthread_mutex_unlock(&a->lock);
    }
}

/* --- what there is to do, for any thread; under the lock --- */

static int may_claim(const struct qr_ahead *a)
{
    return !a->has_ended && !a->is_stopped && !a->is_claiming &&
           a->claimed - a->retired < a->block_count;
}

static struct share *free_share(const struct qr_ahead *a)
{
    for (unsigned i = 0; i < a->share_count; i++)
        if (!a->shares[i].is_taken && a->shares[i].applied < a->taken)
            return &a->shares[i];
    return NULL;
}

static int has_work(const struct qr_ahead *a) { return may_claim(a) || free_share(a) != NULL; }

/* Does something: 1; 0: there is nothing to do. Blocks come before changes as long as the walker
 * might run out of them. */
static int step(struct qr_ahead *a)
{
    pthread_mutex_lock(&a->lock);
    int claims = may_claim(a);
    struct share *share = !claims || a->claimed - a->taken > a->enough ? free_share(a) : NULL;
    claims = claims && !share;
    if (share)
        share->is_taken = 1;
    a->is_claiming |= claims;
    pthread_mutex_unlock(&a->lock);
    struct block *block = claims ? claim(a) : NULL;
    if (share)
        apply_share(a, share);
    if (block)
        prepare(a, block);
    return share || claims;
}

static void *work(void *context)
{
    struct qr_ahead *a = context;
    for (int has_ended = 0; !has_ended;) {
        if (step(a))
            continue;
        pthread_mutex_lock(&a->lock);
        while (!(has_ended = a->is_stopped || (a->has_ended && !a->share_count)) && !has_work(a))
            pthread_cond_wait(&a->room, &a->lock);
        pthread_mutex_unlock(&a->lock);
    }
    return NULL;
}

/* --- the walker --- */

/* Gives the current block back. They are asked to go on when half of the ring is free, unless they
 * have changes to apply: waking a thread costs more than much of its work. */
static void give_back(struct qr_ahead *a)
{
    pthread_mutex_lock(&a->lock);
    a->taken++;
    if (!a->share_count)
        a->retired = a->taken;
    if (a->share_count || a->claimed - a->taken <= a->block_count / 2)
        pthread_cond_broadcast(&a->room);
    pthread_mutex_unlock(&a->lock);
    a->current = NULL;
}

/* Is there an answer: the next block, or that there is none? */
static int next_block(const struct qr_ahead *a, struct block **block)
{
    int is_there = a->claimed > a->taken;
    *block = is_there ? &a->blocks[a->taken % a->block_count] : NULL;
    return is_there ? (*block)->is_ready : a->has_ended;
}

/* Waits for the next block, or helps meanwhile. 1; 0: there is none; or what a change failed
 * with. */
static int take(struct qr_ahead *a)
{
    for (;;) {
        struct block *block;
        pthread_mutex_lock(&a->lock);
        int found;
        while (!(found = next_block(a, &block)) && !has_work(a))
            pthread_cond_wait(&a->ready, &a->lock);
        int rc = a->rc;
        pthread_mutex_unlock(&a->lock);
        if (rc)
            return qr_fail(rc, "a change that was read ahead");
        if (found) {
            a->current = block;
            a->next = 0;
            return block != NULL;
        }
        step(a);
    }
}

/* Applies what there is in blocks that have been given back, and waits for what others do. */
static int settle_given_back(struct qr_ahead *a)
{
    for (;;) {
        pthread_mutex_lock(&a->lock);
        struct share *share;
        while (!(share = free_share(a)) && a->retired < a->taken)
            pthread_cond_wait(&a->ready, &a->lock);
        if (share)
            share->is_taken = 1;
        int rc = a->rc;
        pthread_mutex_unlock(&a->lock);
        if (!share)
            return rc ? qr_fail(rc, "a change that was read ahead") : 0;
        apply_share(a, share);
    }
}

int qr_scan_settle(struct qr_scan *scan)
{
    struct qr_ahead *a = scan->ahead;
    int rc = a && a->share_count ? settle_given_back(a) : 0;
    for (unsigned i = 0; !rc && a && a->current && i < a->share_count; i++)
        rc = apply_list(&a->current->lists[i]);
    return rc;
}

int qr_scan_later(struct qr_scan *scan, uint64_t page, const struct qr_change *change)
{
    struct qr_ahead *a = scan->ahead;
    if (a && a->is_stable && a->share_count) {
        struct list *list = &a->current->lists[page % a->share_count];
        if (QR_GROW(list->items, list->count, list->capacity) == 0) {
            list->items[list->count++] = *change;
            return 0;
        }
    }
    int rc = qr_scan_settle(scan);
    return rc ? rc : qr_change_apply(change);
}

int qr_ahead_next(struct qr_scan *scan, struct qr_frame *frame)
{
    struct qr_ahead *a = scan->ahead;
    while (!a->current || a->next == a->current->count) {
        if (a->current && a->current->is_broken)
            return 0;
        if (a->current)
            give_back(a);
        int found = take(a);
        if (found != 1)
            return found;
    }
    struct block *block = a->current;
    *frame = block->frames[a->next++];
    a->is_stable = frame->body != NULL;
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
        for (unsigned n = 0; a->blocks[i].lists && n < a->share_count; n++)
            qr_free(a->blocks[i].lists[n].items);
        qr_free(a->blocks[i].lists);
    }
    pthread_cond_destroy(&a->ready);
    pthread_cond_destroy(&a->room);
    pthread_mutex_destroy(&a->lock);
    qr_free(a->blocks);
    qr_free(a->shares);
    qr_free(a->headers);
    qr_free(a);
}

static int make_block(const struct qr_ahead *a, struct block *block)
{
    block->frames = qr_malloc(FRAMES * sizeof *block->frames);
    block->lists = qr_calloc(a->share_count + 1, sizeof *block->lists);
    return block->frames && block->lists;
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
                           .enough = threads,
                           .block_count = threads * (scan->takes_changes ? 2 : 1) + RING_MORE,
                           .share_count = scan->takes_changes ? threads : 0};
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->ready, NULL);
    pthread_cond_init(&a->room, NULL);
    a->headers = qr_malloc(HEADERS);
    a->shares = qr_calloc(a->share_count + 1, sizeof *a->shares);
    a->blocks = qr_calloc(a->block_count, sizeof *a->blocks);
    int good = a->headers && a->shares && a->blocks;
    for (uint64_t i = 0; good && i < a->block_count; i++)
        good = make_block(a, &a->blocks[i]);
    return good;
}

void qr_scan_read_ahead(struct qr_scan *scan, uint64_t until, int threads, uint64_t max_memory)
{
    uint64_t limit = until && until < scan->limit ? until : scan->limit;
    uint64_t fit = max_memory ? max_memory / 2 / BLOCK_MEMORY : 2 * THREADS_MAX + RING_MORE;
    uint64_t blocks = limit > scan->offset ? (limit - scan->offset) / BLOCK : 0;
    unsigned wanted = threads < 1 ? 1 : threads > THREADS_MAX ? THREADS_MAX : (unsigned)threads;
    uint64_t most = fit > RING_MORE ? (fit - RING_MORE) / (scan->takes_changes ? 2 : 1) : 0;
    if (wanted > most)
        wanted = (unsigned)most;
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
