/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public API: transactions.
 *
 * A transaction gathers what is to change and touches nothing until it commits. Of each page whose
 * content changes it keeps the new content as a list of segments: a range of the old content, bytes
 * the caller gave, or zeros. Writes, splices and resizes are all one operation on that list.
 * Structural changes (create, rename, attributes, free) become records in the order of the calls.
 * What becomes of the segments at commit: runtime/api_commit.c. Which transaction may have which
 * page: runtime/api_claims.c.
 */
#include <string.h>

#include "runtime/api_transaction.h"
#include "runtime/state_internal.h"

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

enum {
    BLOCK = 64 << 10,
    BLOCK_ROOM = BLOCK - sizeof(struct block),
    BLOCKS_KEPT = 32, /* for the next transaction */
};

/* One with room for `size` bytes, of the usual capacity where that is enough. */
static struct block *get_block(struct qr_api_work *work, size_t size)
{
    struct block *block = work->blocks;
    size_t capacity = size > BLOCK / 4 ? size : BLOCK_ROOM;
    if (block && capacity == BLOCK_ROOM) {
        work->blocks = block->next;
        work->block_count--;
    } else {
        block = qr_malloc(sizeof *block + capacity);
    }
    if (block)
        *block = (struct block){.capacity = capacity};
    return block;
}

void qr_api_give_blocks(struct qallow_txn *txn)
{
    struct qr_api_work *work = txn->work;
    while (txn->blocks) {
        struct block *block = txn->blocks;
        txn->blocks = block->next;
        if (block->capacity != BLOCK_ROOM || work->block_count == BLOCKS_KEPT) {
            qr_free(block);
            continue;
        }
        block->next = work->blocks;
        work->blocks = block;
        work->block_count++;
    }
}

void *qr_api_txn_alloc(struct qallow_txn *txn, size_t size)
{
    struct block *block = txn->blocks;
    size = (size + 15) & ~(size_t)15;
    if (!block || block->capacity - block->used < size) {
        block = get_block(txn->work, size);
        if (!block) {
            qr_fail(QALLOW_E_NO_MEMORY, "no memory to keep %zu bytes of a transaction", size);
            return NULL;
        }
        /* a large one is full at once: the open one stays in front */
        int is_full = txn->blocks && block->capacity == size;
        struct block **place = is_full ? &txn->blocks->next : &txn->blocks;
        block->next = *place;
        *place = block;
    }
    block->used += size;
    return block->bytes + block->used - size;
}

static void free_edited(struct edited *edited)
{
    qr_content_finish(&edited->content);
    qr_free(edited->segments);
    qr_free(edited->name);
}

/* --- segments --- */

static int reserve_segments(struct edited *e, size_t count)
{
    size_t capacity = e->capacity ? e->capacity : 8;
    while (capacity < count)
        capacity *= 2;
    if (capacity == e->capacity)
        return 0;
    struct segment *segments = qr_realloc(e->segments, capacity * sizeof *segments);
    if (!segments)
        return qr_fail(QALLOW_E_NO_MEMORY, "page %llu: no memory for %zu edits",
                       (unsigned long long)e->id, capacity);
    e->segments = segments;
    e->capacity = capacity;
    return 0;
}

static int splice_segments(struct edited *e, uint64_t offset, uint64_t removed,
                           struct segment middle);

/* There is room for what comes of it: each adds two segments at most. */
static void replay_overwrites(struct edited *e)
{
    for (const struct overwrite *o = e->overwrites; o; o = o->next) {
        int rc = splice_segments(
            e, o->offset, o->length,
            (struct segment){.source = GIVEN, .length = o->length, .bytes = o->bytes});
        qr_assert(rc == 0);
    }
    e->overwrites = NULL;
    e->overwrite_count = e->overwritten = 0;
}

int qr_api_make_segments(struct edited *e)
{
    int rc = reserve_segments(e, 1 + 2 * e->overwrite_count);

    if (rc < 0 || e->has_segments)
        return rc;
    e->has_segments = 1;
    if (e->size > 0)
        e->segments[e->count++] = (struct segment){.source = OLD, .length = e->size};
    replay_overwrites(e);
    return 0;
}

/* The segment that holds `offset` (or the end): its index; where it begins goes to *begin. */
static size_t seek_segment(struct edited *e, uint64_t offset, uint64_t *begin)
{
    if (offset < e->at_offset)
        e->at = e->at_offset = 0;
    while (e->at < e->count && offset - e->at_offset >= e->segments[e->at].length)
        e->at_offset += e->segments[e->at++].length;
    *begin = e->at_offset;
    return e->at;
}

/* What is left of a segment without its first `skip` bytes. */
static struct segment segment_rest(struct segment s, uint64_t skip)
{
    s.length -= skip;
    s.from += skip;
    if (s.bytes)
        s.bytes += skip;
    return s;
}

/* 1 if b goes on where a ends, so that they are one. */
static int segments_join(const struct segment *a, const struct segment *b)
{
    if (a->source != b->source)
        return 0;
    if (a->source == OLD)
        return a->from + a->length == b->from;
    return a->source == ZEROS || a->bytes + a->length == b->bytes;
}

/* Puts `middle` (length 0: nothing) in place of `removed` bytes at `offset`. */
static int splice_segments(struct edited *e, uint64_t offset, uint64_t removed,
                           struct segment middle)
{
    struct segment put[3];
    size_t put_count = 0, first, last;
    uint64_t begin, end = offset + removed, at;
    int rc = reserve_segments(e, e->count + 2);

    if (rc < 0)
        return rc;
    first = last = seek_segment(e, offset, &begin);
    if (offset > begin) {
        put[put_count++] = e->segments[first];
        put[0].length = offset - begin;
    }
    if (middle.length > 0) {
        if (put_count > 0 && segments_join(&put[0], &middle))
            put[0].length += middle.length;
        else
            put[put_count++] = middle;
    }
    for (at = begin; last < e->count && at + e->segments[last].length <= end; last++)
        at += e->segments[last].length;
    if (last < e->count && at < end)
        put[put_count++] = segment_rest(e->segments[last++], end - at);
    else if (last == first && last < e->count && offset > begin) /* cut in two, nothing removed */
        put[put_count++] = segment_rest(e->segments[last++], offset - begin);
    memmove(&e->segments[first + put_count], &e->segments[last],
            (e->count - last) * sizeof *e->segments);
    memcpy(&e->segments[first], put, put_count * sizeof *put);
    e->count = e->count - (last - first) + put_count;
    e->size = e->size - removed + middle.length;
    return 0;
}

/* The caller's bytes, kept until the commit. */
static int keep_bytes(struct qallow_txn *txn, const void *bytes, size_t length, struct segment *s)
{
    uint8_t *copy = qr_api_txn_alloc(txn, length);
    if (!copy)
        return QALLOW_E_NO_MEMORY;
    memcpy(copy, bytes, length);
    *s = (struct segment){.source = GIVEN, .length = length, .bytes = copy};
    return 0;
}

/* --- reading --- */

static int find_old(struct qallow_txn *txn, struct edited *e)
{
    if (e->content.pieces)
        return 0;
    pthread_rwlock_rdlock(&txn->store->newest_lock);
    const struct qr_page *page = qr_state_find(qr_store_state(txn->store->store), e->id);
    qr_assert(page != NULL);
    int rc = qr_content_init(&e->content, page);
    pthread_rwlock_unlock(&txn->store->newest_lock);
    return rc;
}

static int read_old(struct qallow_txn *txn, struct edited *e, uint64_t offset, uint8_t *to,
                    size_t length)
{
    if (e->held) {
        memcpy(to, e->held + offset, length);
        return 0;
    }
    int rc = find_old(txn, e);
    return rc < 0 ? rc : qr_content_read(txn->work->reader, &e->content, offset, to, length);
}

int qr_api_old_bytes(struct qallow_txn *txn, struct edited *e, uint64_t offset, size_t length,
                     const uint8_t **bytes)
{
    *bytes = e->held ? e->held + offset : txn->work->old_bytes;
    return e->held || length == 0 ? 0 : read_old(txn, e, offset, txn->work->old_bytes, length);
}

/* Reads [offset, +length) of the new content. */
static int read_edited(struct qallow_txn *txn, struct edited *e, uint64_t offset, uint8_t *to,
                       size_t length)
{
    int rc = 0;
    while (rc == 0 && length > 0) {
        uint64_t begin;
        size_t i = seek_segment(e, offset, &begin);
        qr_assert(i < e->count);
        struct segment s = segment_rest(e->segments[i], offset - begin);
        size_t n = smaller(s.length, length);
        if (s.source == OLD)
            rc = read_old(txn, e, s.from, to, n);
        else if (s.source == GIVEN)
            memcpy(to, s.bytes, n);
        else
            memset(to, 0, n);
        offset += n;
        to += n;
        length -= n;
    }
    return rc;
}

int qr_api_new_bytes(struct qallow_txn *txn, struct edited *e, uint64_t offset, size_t length,
                     const uint8_t **bytes)
{
    *bytes = txn->work->new_bytes;
    if (length == 0)
        return 0;
    uint64_t begin;
    size_t i = seek_segment(e, offset, &begin);
    qr_assert(i < e->count);
    struct segment s = e->segments[i];
    if (s.source != GIVEN || length > s.length - (offset - begin))
        return read_edited(txn, e, offset, txn->work->new_bytes, length);
    *bytes = s.bytes + (offset - begin);
    return 0;
}

void qr_api_txn_destroy(struct qallow_txn *txn)
{
    for (size_t i = 0; i < txn->count; i++)
        free_edited(txn->pages[i]);
    qr_api_give_blocks(txn);
    qr_free(txn->pages);
    qr_free(txn->events.bytes);
    qr_api_work_give(txn->store, txn->work);
    qr_free(txn);
}

/* --- structure --- */

static int check_name(const char *name)
{
    size_t length = name ? strlen(name) : 0;
    QR_CHECK_ARGUMENT(name != NULL);
    if (length == 0 || strchr(name, '/'))
        return qr_fail(QALLOW_E_ARGUMENT, "%s: a page's name has 1 to %d bytes and no '/'",
                       qr_quotez(name), QR_NAME_MAX);
    if (length > QR_NAME_MAX)
        return qr_fail(QALLOW_E_LIMIT, "a name of %zu bytes: at most %d", length, QR_NAME_MAX);
    return 0;
}

static int check_parent(struct qallow_txn *txn, uint64_t parent)
{
    const struct edited *e = qr_api_find_edited(txn, parent);
    if (e ? !e->freed : qr_state_find(qr_store_state(txn->store->store), parent) != NULL)
        return 0;
    return qr_fail(QALLOW_E_PAGE_NOT_FOUND, "no page %llu, to be a parent",
                   (unsigned long long)parent);
}

/* The place (parent, name) may be taken by page `id` as far as the store and what the transaction
 * did to the page there say; the rest is found when the records are applied. Under the newest
 * lock. */
static int check_free(struct qallow_txn *txn, uint64_t id, uint64_t parent, const char *name)
{
    const struct qr_page *there;
    const struct edited *e;
    int rc = parent != 0 ? check_parent(txn, parent) : 0;

    if (rc < 0)
        return rc;
    there = qr_state_child(qr_store_state(txn->store->store), parent, name, strlen(name));
    if (!there || there->id == id)
        return 0;
    e = qr_api_find_edited(txn, there->id);
    if (e && (e->freed || e->name))
        return 0;
    return qr_fail(QALLOW_E_PAGE_EXISTS, "page %llu has the name %s already",
                   (unsigned long long)there->id, qr_quotez(name));
}

static int check_place(struct qallow_txn *txn, uint64_t id, uint64_t parent, const char *name)
{
    int rc = check_name(name);

    if (rc == 0)
        rc = qr_api_claim_structure(txn);
    if (rc < 0)
        return rc;
    pthread_rwlock_rdlock(&txn->store->newest_lock);
    rc = check_free(txn, id, parent, name);
    pthread_rwlock_unlock(&txn->store->newest_lock);
    return rc;
}

/* 1 if the page stands there already, as the transaction sees it. */
static int is_there(const struct qallow_txn *txn, const struct edited *e, uint64_t parent,
                    const char *name)
{
    if (e->name)
        return e->parent == parent && strcmp(e->name, name) == 0;
    pthread_rwlock_rdlock(&txn->store->newest_lock);
    const struct qr_page *page = qr_state_find(qr_store_state(txn->store->store), e->id);
    int is_same = page && page->parent == parent && page->name_length == strlen(name) &&
                  memcmp(page->name, name, page->name_length) == 0;
    pthread_rwlock_unlock(&txn->store->newest_lock);
    return is_same;
}

static char *copy_name(const char *name)
{
    size_t size = strlen(name) + 1;
    char *copy = qr_malloc(size);
    if (!copy)
        qr_fail(QALLOW_E_NO_MEMORY, "no memory for a name");
    else
        memcpy(copy, name, size);
    return copy;
}

static void set_place(struct edited *e, uint64_t parent, char *name)
{
    qr_free(e->name);
    e->name = name;
    e->parent = parent;
}

static int take_options(const struct qallow_page_options *options, struct qallow_page_options *o,
                        struct qr_attributes *attributes)
{
    int rc = qr_api_options(options, o, sizeof *o, sizeof *o);

    if (rc < 0)
        return rc;
    for (size_t i = 0; i < sizeof o->reserved / sizeof *o->reserved; i++)
        QR_CHECK_ARGUMENT(o->reserved[i] == 0);
    QR_CHECK_ARGUMENT(o->extra != NULL || o->extra_length == 0);
    QR_CHECK_ARGUMENT(o->mode <= 07777);
    if (o->extra_length > QR_EXTRA_MAX)
        return qr_fail(QALLOW_E_LIMIT, "%llu attribute bytes: at most %d",
                       (unsigned long long)o->extra_length, QR_EXTRA_MAX);
    *attributes = (struct qr_attributes){.mode = o->mode,
                                         .mtime_ns = o->mtime_ns,
                                         .extra = o->extra,
                                         .extra_length = (uint16_t)o->extra_length};
    return 0;
}

int qallow_page_create(struct qallow_txn *txn, const struct qallow_page_options *options,
                       uint64_t *page)
{
    struct qallow_page_options o = QALLOW_PAGE_OPTIONS_INIT;
    struct qr_attributes attributes;
    struct edited *e;
    int rc;

    QR_CHECK_ARGUMENT(txn != NULL && options != NULL && page != NULL);
    rc = take_options(options, &o, &attributes);
    if (rc < 0)
        return rc;
    if (o.kind == 0)
        o.kind = QALLOW_RAW;
    QR_CHECK_ARGUMENT(o.kind <= QALLOW_TENSOR && o.kind != QALLOW_CONFIG);
    if (o.location == QALLOW_GPU || o.location == QALLOW_UNIFIED)
        return qr_fail(QALLOW_E_UNSUPPORTED_LOCATION,
                       "page %s: a store keeps its pages on the CPU; qallow_mirror_create() "
                       "puts them on a GPU",
                       qr_quotez(o.name ? o.name : ""));
    QR_CHECK_ARGUMENT(o.location == QALLOW_CPU);
    rc = check_place(txn, 0, o.parent, o.name);
    if (rc < 0)
        return rc;
    rc = qr_api_add_created(txn, &e);
    if (rc == 0) {
        char *copy = copy_name(o.name);
        rc = copy ? 0 : QALLOW_E_NO_MEMORY;
        if (copy)
            set_place(e, o.parent, copy);
        if (rc == 0)
            rc = qr_batch_page_create(txn->work->batch, e->id, o.parent, o.name, strlen(o.name),
                                      (enum qr_kind)o.kind, &attributes);
        e->freed = rc < 0;
    }
    if (rc == 0)
        *page = e->id;
    return rc;
}

int qallow_page_rename(struct qallow_txn *txn, uint64_t page, uint64_t parent, const char *name)
{
    struct edited *e;
    int rc;

    QR_CHECK_ARGUMENT(txn != NULL);
    rc = qr_api_get_edited(txn, page, &e);
    if (rc == 0)
        rc = check_place(txn, page, parent, name);
    if (rc < 0 || is_there(txn, e, parent, name))
        return rc;
    char *copy = copy_name(name);
    if (!copy)
        return QALLOW_E_NO_MEMORY;
    rc = qr_batch_page_rename(txn->work->batch, page, parent, name, strlen(name));
    if (rc == 0)
        set_place(e, parent, copy);
    else
        qr_free(copy);
    return rc;
}

int qallow_page_set_attributes(struct qallow_txn *txn, uint64_t page,
                               const struct qallow_page_options *options)
{
    struct qallow_page_options o = QALLOW_PAGE_OPTIONS_INIT;
    struct qr_attributes attributes;
    struct edited *e;
    int rc;

    QR_CHECK_ARGUMENT(txn != NULL && options != NULL);
    rc = take_options(options, &o, &attributes);
    if (rc == 0)
        rc = qr_api_claim_structure(txn);
    if (rc == 0)
        rc = qr_api_get_edited(txn, page, &e);
    return rc < 0 ? rc : qr_batch_page_attributes(txn->work->batch, page, &attributes);
}

int qallow_page_free(struct qallow_txn *txn, uint64_t page)
{
    struct edited *e;
    int rc;

    QR_CHECK_ARGUMENT(txn != NULL);
    rc = qr_api_claim_structure(txn);
    if (rc == 0)
        rc = qr_api_get_edited(txn, page, &e);
    if (rc == 0)
        rc = qr_batch_page_free(txn->work->batch, page);
    if (rc == 0)
        e->freed = 1;
    return rc;
}

/* --- content --- */

static int splice(struct qallow_txn *txn, struct edited *e, uint64_t offset, uint64_t removed,
                  struct segment middle)
{
    if (middle.length > QR_PAGE_SIZE_MAX - (e->size - removed))
        return qr_fail(QALLOW_E_LIMIT, "page %llu would grow beyond 2^48 bytes",
                       (unsigned long long)e->id);
    return splice_segments(e, offset, removed, middle);
}

static int beyond(const struct edited *e, uint64_t offset, uint64_t length)
{
    return qr_fail(QALLOW_E_INVALID_DELTA, "page %llu: bytes %llu+%llu reach beyond its %llu",
                   (unsigned long long)e->id, (unsigned long long)offset,
                   (unsigned long long)length, (unsigned long long)e->size);
}

int qallow_page_splice(struct qallow_txn *txn, uint64_t page, uint64_t offset, uint64_t removed,
                       const void *bytes, size_t length)
{
    struct segment middle = {0};
    struct edited *e;
    int rc;

    QR_CHECK_ARGUMENT(txn != NULL);
    QR_CHECK_ARGUMENT(bytes != NULL || length == 0);
    rc = qr_api_get_edited(txn, page, &e);
    if (rc == 0 && (offset > e->size || removed > e->size - offset))
        rc = beyond(e, offset, removed);
    if (rc == 0)
        rc = qr_api_make_segments(e);
    if (rc == 0 && length > 0)
        rc = keep_bytes(txn, bytes, length, &middle);
    return rc < 0 ? rc : splice(txn, e, offset, removed, middle);
}

static int write_to(struct qallow_txn *txn, struct edited *e, uint64_t offset, const void *bytes,
                    size_t length)
{
    if (offset > e->size)
        return beyond(e, offset, length);
    int rc = qr_api_overwrite(txn, e, offset, bytes, length);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    return qallow_page_splice(txn, e->id, offset, smaller(length, e->size - offset), bytes, length);
}

int qallow_page_write(struct qallow_txn *txn, uint64_t page, uint64_t offset, const void *bytes,
                      size_t length)
{
    struct edited *e;

    QR_CHECK_ARGUMENT(txn != NULL);
    QR_CHECK_ARGUMENT(bytes != NULL || length == 0);
    int rc = qr_api_get_edited(txn, page, &e);
    return rc < 0 ? rc : write_to(txn, e, offset, bytes, length);
}

/* As many as are looked up together; *made is how many were written. */
static int write_some(struct qallow_txn *txn, const struct qallow_write *writes, size_t count,
                      size_t *made)
{
    struct edited *edited[QR_API_AT_ONCE];
    size_t got;
    int rc = 0, found = qr_api_get_each(txn, writes, count, edited, &got);

    for (*made = 0; *made < got && rc == 0; *made += rc == 0) {
        const struct qallow_write *w = &writes[*made];
        rc = write_to(txn, edited[*made], w->offset, w->bytes, w->length);
    }
    return rc < 0 ? rc : found;
}

int qallow_pages_write(struct qallow_txn *txn, const struct qallow_write *writes, size_t count,
                       size_t *made)
{
    size_t done = 0, now;
    int rc = 0;

    if (made)
        *made = 0;
    QR_CHECK_ARGUMENT(txn != NULL);
    QR_CHECK_ARGUMENT(writes != NULL || count == 0);
    for (size_t i = 0; i < count; i++)
        QR_CHECK_ARGUMENT(writes[i].bytes != NULL || writes[i].length == 0);
    for (; rc == 0 && done < count; done += now)
        rc = write_some(txn, writes + done, smaller(count - done, QR_API_AT_ONCE), &now);
    if (made)
        *made = done;
    return rc;
}

int qallow_page_resize(struct qallow_txn *txn, uint64_t page, uint64_t new_size)
{
    struct segment zeros = {.source = ZEROS};
    struct edited *e;
    int rc;

    QR_CHECK_ARGUMENT(txn != NULL);
    rc = qr_api_get_edited(txn, page, &e);
    if (rc < 0 || new_size == e->size)
        return rc;
    rc = qr_api_make_segments(e);
    if (rc < 0)
        return rc;
    if (new_size < e->size)
        return splice(txn, e, new_size, e->size - new_size, zeros);
    zeros.length = new_size - e->size;
    return splice(txn, e, e->size, 0, zeros);
}

int qallow_txn_read(struct qallow_txn *txn, uint64_t page, uint64_t offset, void *buffer,
                    size_t length)
{
    struct edited *e;
    int rc;

    QR_CHECK_ARGUMENT(txn != NULL);
    QR_CHECK_ARGUMENT(buffer != NULL || length == 0);
    rc = qr_api_get_edited(txn, page, &e);
    if (rc == 0 && (offset > e->size || length > e->size - offset))
        rc = qr_fail(QALLOW_E_LIMIT, "page %llu: bytes %llu+%zu reach beyond its %llu",
                     (unsigned long long)page, (unsigned long long)offset, length,
                     (unsigned long long)e->size);
    if (rc == 0)
        rc = qr_api_make_segments(e);
    return rc < 0 ? rc : read_edited(txn, e, offset, buffer, length);
}
