/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the cache: open, look up, wait. qallow/accelerator.h says what; docs/formats/cache.md how
 * the memory is laid out.
 *
 * The keeper changes the memory while it is read, and takes no notice of readers. So a reader
 * copies what it needs and then looks whether the root of the table, the slot and the entry's
 * generation are what they were; if they are, the copy is one entry as it stood in the table at
 * that time, else it looks again. And the memory need not be sound: nothing is touched before its
 * offset and length have been held against the size of the file, and every loop has an end.
 */
#include "accelerator/cache_reader.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "accelerator/cache_internal.h"
#include "runtime/error.h"
#include "runtime/os.h"

enum {
    UNCOUNTED_MAX = 1024,  /* look-ups before they are added to the shared numbers */
    SLEEP_NS = 1000000000, /* before looking whether the keeper is still alive */
    SPINS_BETWEEN_CLOCK_READS = 64,
};

/* --- the memory --- */

int qa_reader_superseded(const struct qallow_cache *cache)
{
    return qr_fail(QALLOW_E_STATE, "the cache of %s was replaced by another one",
                   qr_quotez(cache->root));
}

int qa_reader_damaged(const struct qallow_cache *cache)
{
    return qr_fail(QALLOW_E_DAMAGED, "%s makes no sense", qr_quotez(cache->path));
}

/* The segment has grown, or says so: what the file really has. */
static void check_size(struct qallow_cache *cache)
{
    uint64_t size = qa_load(&cache->header->size);
    struct stat st;
    if (size <= cache->checked)
        return;
    if (cache->is_attached)
        cache->checked = size;
    else if (fstat(cache->fd, &st) == 0 && (uint64_t)st.st_size >= QA_HEADER_BYTES)
        cache->checked = size < (uint64_t)st.st_size ? size : (uint64_t)st.st_size;
    if (cache->checked > QA_MAP_BYTES)
        cache->checked = QA_MAP_BYTES;
}

static int is_within(const struct qallow_cache *cache, uint64_t at, uint64_t bytes)
{
    return at >= QA_HEADER_BYTES && at <= cache->checked && bytes <= cache->checked - at;
}

int qa_reader_has(struct qallow_cache *cache, uint64_t granule, uint64_t bytes)
{
    uint64_t at = (granule & UINT32_MAX) * QA_GRANULE;
    if (__builtin_expect(granule > UINT32_MAX, 0))
        return 0;
    if (__builtin_expect(is_within(cache, at, bytes), 1))
        return 1;
    check_size(cache);
    return is_within(cache, at, bytes);
}

static int use_table(struct qallow_cache *cache, uint64_t table)
{
    unsigned log2 = qa_log2_of(table);
    if (log2 < QA_TABLE_LOG2_MIN || log2 > QA_TABLE_LOG2_MAX ||
        !qa_reader_has(cache, qa_granule_of(table), UINT64_C(8) << log2))
        return 0;
    cache->table = table;
    cache->log2 = log2;
    cache->mask = (UINT64_C(1) << log2) - 1;
    cache->slots = (const _Atomic uint64_t *)((const char *)cache->header +
                                              (uint64_t)qa_granule_of(table) * QA_GRANULE);
    return 1;
}

int qa_reader_sync(struct qallow_cache *cache)
{
    uint64_t table = qa_load(&cache->header->table);
    return __builtin_expect(table == cache->table, 1) || use_table(cache, table);
}

enum qa_look qa_reader_view(struct qallow_cache *cache, uint64_t at, uint64_t slot,
                            struct qa_view *view)
{
    uint64_t granule = qa_granule_of(slot);
    view->at = at;
    view->slot = slot;
    if (!qa_reader_has(cache, granule, qa_entry_bytes(cache->hash_bytes, 0)))
        return QA_LOOK_BAD;
    const struct qa_entry *entry =
        (const struct qa_entry *)((const char *)cache->header + granule * QA_GRANULE);
    view->entry = entry;
    view->generation = qa_load(&entry->generation);
    view->path_hash = qa_load(&entry->path_hash);
    view->shape = qa_load(&entry->shape);
    view->path_length = qa_shape_length(view->shape);
    if (view->generation == 0 || !qa_shape_is_plausible(view->shape) ||
        !qa_reader_has(cache, granule, qa_entry_bytes(cache->hash_bytes, view->path_length)))
        return QA_LOOK_BAD;
    return QA_LOOK_FOUND;
}

void qa_reader_copy(const struct qallow_cache *cache, struct qa_view *view,
                    struct qallow_file *file)
{
    const struct qa_entry *entry = view->entry;
    view->content = qa_load(&entry->content);
    file->size = qa_load(&entry->size);
    file->mtime_ns = (int64_t)qa_load(&entry->mtime);
    file->inode = qa_load(&entry->inode);
    file->epoch = qa_load(&entry->epoch);
    file->mode = view->shape & 0xffff;
    file->kind = view->shape >> 16 & 0xff;
    file->state = qa_load32(&entry->pending) ? QALLOW_FILE_PENDING : view->shape >> 24 & 0xff;
    file->removed = (uint8_t)qa_shape_is_removed(view->shape);
    /* An empty file's bytes are all there. */
    file->has_content =
        view->content != 0 || (file->size == 0 && file->state == QALLOW_FILE_CURRENT);
    qa_load_bytes(file->hash, entry->words, 16);
    if (cache->hash_bytes == 32)
        qa_load_bytes(file->hash + 16, entry->words + 2, 16);
    else
        memset(file->hash + 16, 0, 16);
}

int qa_reader_is_stable(const struct qallow_cache *cache, const struct qa_view *view)
{
    return qa_load(&view->entry->generation) == view->generation &&
           qa_load(&cache->slots[view->at]) == view->slot &&
           qa_load(&cache->header->table) == cache->table;
}

enum qa_look qa_reader_retry(const struct qallow_cache *cache, enum qa_look look, uint64_t at,
                             uint64_t slot)
{
    int same = qa_load(&cache->slots[at]) == slot && qa_load(&cache->header->table) == cache->table;
    return look == QA_LOOK_BAD && same ? QA_LOOK_BAD : QA_LOOK_AGAIN;
}

int qa_reader_may_retry(const struct qallow_cache *cache, int *tries, enum qa_look look)
{
    *tries += look == QA_LOOK_BAD ? QA_TRIES / 100 : 1;
    return *tries < QA_TRIES ? 0 : qa_reader_damaged(cache);
}

/* --- opening --- */

static int check_header(struct qallow_cache *cache, const char *root)
{
    const struct qa_header *header = cache->header;
    if (memcmp(header->magic, QA_CACHE_MAGIC, 8) != 0)
        return qr_fail(QALLOW_E_DAMAGED, "%s is no cache", qr_quotez(cache->path));
    if (header->version != QA_CACHE_VERSION)
        return qr_fail(QALLOW_E_VERSION, "%s is of format %u, this is for format %d",
                       qr_quotez(cache->path), header->version, QA_CACHE_VERSION);
    if (qa_load32(&header->superseded))
        return qr_fail(QALLOW_E_UNAVAILABLE, "%s was given up", qr_quotez(cache->path));
    if (header->hash_bytes != (header->hash == QALLOW_HASH_SHA256 ? 32 : 16) ||
        (header->hash != QALLOW_HASH_SHA256 && header->hash != QALLOW_HASH_XXH3_128) ||
        header->map_bytes != QA_MAP_BYTES || header->root_length >= QA_ROOT_MAX ||
        header->root[header->root_length] != '\0')
        return qa_reader_damaged(cache);
    if (strcmp(header->root, root) != 0)
        return qr_fail(QALLOW_E_UNAVAILABLE, "%s is the cache of %s", qr_quotez(cache->path),
                       qr_quotez(header->root));
    cache->seed = header->seed;
    cache->hash = header->hash == QALLOW_HASH_SHA256 ? QALLOW_HASH_SHA256 : QALLOW_HASH_XXH3_128;
    cache->hash_bytes = cache->hash == QALLOW_HASH_SHA256 ? 32 : 16; /* not what is there by now */
    cache->table = ~qa_load(&header->table);
    check_size(cache);
    return qa_reader_sync(cache) ? 0 : qa_reader_damaged(cache);
}

static struct qallow_cache *new_handle(const char *path, const char *root)
{
    struct qallow_cache *cache = qr_calloc(1, sizeof *cache);
    if (!cache)
        return NULL;
    cache->fd = cache->lock_fd = -1;
    cache->path = qr_malloc(strlen(path) + 1);
    if (!cache->path) {
        qr_free(cache);
        return NULL;
    }
    memcpy(cache->path, path, strlen(path) + 1);
    memcpy(cache->root, root, strlen(root) + 1);
    return cache;
}

static void use_readers(struct qallow_cache *cache)
{
    cache->readers = qa_segment_readers(cache->path, 0);
    if (cache->readers) /* any will do, if only not all the same */
        cache->shard =
            &cache->readers->shard[((uintptr_t)cache >> 6 ^ (unsigned)getpid()) % QA_SHARDS];
}

static int open_segment(struct qallow_cache *cache, const char *root)
{
    uint64_t size;
    cache->fd = qa_segment_open_file(cache->path, 0, &size);
    if (cache->fd < 0)
        return cache->fd;
    if (size < QA_HEADER_BYTES)
        return qr_fail(QALLOW_E_DAMAGED, "%s has %llu bytes, which is too short for a cache",
                       qr_quotez(cache->path), (unsigned long long)size);
    cache->header = qa_segment_map(cache->fd, 0);
    if (!cache->header)
        return QALLOW_E_NO_MEMORY;
    int result = check_header(cache, root);
    if (result == 0)
        use_readers(cache);
    return result;
}

/* Opens the cache of `root` in the i-th directory where it may be. */
static int open_place(unsigned i, const char *root, struct qallow_cache **out)
{
    char path[QA_SEGMENT_PATH];
    if (strlen(root) >= QA_ROOT_MAX || !qa_segment_name(i, root, path))
        return QALLOW_E_UNAVAILABLE;
    struct qallow_cache *cache = new_handle(path, root);
    if (!cache)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a reader of a cache");
    int result = open_segment(cache, root);
    if (result == 0)
        *out = cache;
    else
        qallow_cache_close(cache);
    return result;
}

/* Opens the cache of a directory whose absolute name is `root`. The keeper goes on to the next
 * place where somebody else has put a file of that name, and so does this. */
static int open_root(const char *root, struct qallow_cache **out)
{
    int result = QALLOW_E_UNAVAILABLE;
    unsigned refused = QA_SEGMENT_DIRECTORIES;
    for (unsigned i = 0; i < QA_SEGMENT_DIRECTORIES && result == QALLOW_E_UNAVAILABLE; i++) {
        result = open_place(i, root, out);
        if (result == QALLOW_E_PERMISSION) {
            refused = refused < i ? refused : i;
            result = QALLOW_E_UNAVAILABLE;
        }
    }
    if (result == QALLOW_E_UNAVAILABLE && refused < QA_SEGMENT_DIRECTORIES)
        result = open_place(refused, root, out); /* for what it says */
    return result == QALLOW_E_UNAVAILABLE
               ? qr_fail(result, "there is no cache of %s", qr_quotez(root))
               : result;
}

int qallow_cache_open(const char *directory, struct qallow_cache **cache)
{
    char *root = realpath(directory, NULL);
    if (!root)
        return qr_fail_errno(errno, "%s", qr_quotez(directory));
    int result = open_root(root, cache);
    free(root);
    return result;
}

/* Cuts off the last component: 1, or 0 if there is none. */
static int go_up(char *path)
{
    char *slash = strrchr(path, '/');
    if (!slash || path[1] == '\0')
        return 0;
    slash[slash == path] = '\0';
    return 1;
}

/* The absolute name of what exists at or above `path`; to be freed. */
static char *existing(const char *path)
{
    size_t length = strlen(path);
    char *copy = qr_malloc(length + 3), *real = NULL;
    if (!copy) {
        errno = ENOMEM;
        return NULL;
    }
    snprintf(copy, length + 3, "%s%s", path[0] == '/' ? "" : "./", path);
    do
        real = realpath(copy, NULL);
    while (!real && (errno == ENOENT || errno == ENOTDIR) && go_up(copy));
    qr_free(copy);
    return real;
}

int qallow_cache_open_above(const char *path, struct qallow_cache **cache)
{
    int result;
    char *root = existing(path);
    if (!root)
        return qr_fail_errno(errno, "%s", qr_quotez(path));
    do
        result = open_root(root, cache);
    while (result == QALLOW_E_UNAVAILABLE && go_up(root));
    free(root);
    return result == QALLOW_E_UNAVAILABLE
               ? qr_fail(result, "there is no cache of a directory at or above %s", qr_quotez(path))
               : result;
}

int qa_cache_reader_attach(const struct qa_cache *keeper, struct qallow_cache **out)
{
    struct qallow_cache *cache = new_handle(keeper->path, keeper->header->root);
    if (!cache)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a reader of a cache");
    cache->header = keeper->header;
    cache->is_attached = 1;
    int result = check_header(cache, cache->root);
    if (result < 0) {
        qallow_cache_close(cache);
        return result;
    }
    use_readers(cache);
    *out = cache;
    return 0;
}

static void add_counts(struct qallow_cache *cache)
{
    if (cache->shard) {
        atomic_fetch_add_explicit(&cache->shard->hits, cache->hits, memory_order_relaxed);
        atomic_fetch_add_explicit(&cache->shard->misses, cache->misses, memory_order_relaxed);
    }
    cache->hits = cache->misses = 0;
}

void qallow_cache_close(struct qallow_cache *cache)
{
    if (!cache)
        return;
    add_counts(cache);
    qa_segment_readers_close(cache->readers);
    if (!cache->is_attached)
        qa_segment_unmap(cache->header);
    if (cache->fd >= 0)
        close(cache->fd);
    if (cache->lock_fd >= 0)
        close(cache->lock_fd);
    qr_free(cache->hashes);
    qr_free(cache->names);
    qr_free(cache->path);
    qr_free(cache);
}

const char *qallow_cache_root(const struct qallow_cache *cache) { return cache->root; }
const char *qa_cache_reader_path(const struct qallow_cache *cache) { return cache->path; }

/* --- looking up --- */

struct question {
    const char *path;
    size_t length;
    uint64_t hash;
    void *buffer; /* NULL: no content */
    size_t capacity;
    struct qallow_file *file;
};

/* Copies the content that the view refers to; what comes of it is only valid if all is stable. */
static enum qa_look copy_content(struct qallow_cache *cache, const struct question *question,
                                 const struct qa_view *view)
{
    uint64_t size = question->file->size;
    if (!view->content || size == 0)
        return QA_LOOK_FOUND;
    if (!qa_reader_has(cache, view->content, size))
        return QA_LOOK_BAD;
    qa_load_bytes(
        question->buffer,
        (const _Atomic uint64_t *)((const char *)cache->header + view->content * QA_GRANULE),
        size < question->capacity ? size : question->capacity);
    return qa_load(&view->entry->content) == view->content ? QA_LOOK_FOUND : QA_LOOK_AGAIN;
}

static enum qa_look examine(struct qallow_cache *cache, const struct question *question,
                            uint64_t at, uint64_t slot, struct qa_view *view)
{
    enum qa_look look = qa_reader_view(cache, at, slot, view);
    if (look != QA_LOOK_FOUND)
        return look;
    if (view->path_hash != question->hash || view->path_length != question->length ||
        !qa_same_bytes(qa_view_path(cache, view), question->path, question->length))
        return QA_LOOK_END;
    qa_reader_copy(cache, view, question->file);
    return question->buffer ? copy_content(cache, question, view) : QA_LOOK_FOUND;
}

/* One pass over the slots where the path may be. */
static enum qa_look look_once(struct qallow_cache *cache, const struct question *question,
                              struct qa_view *view)
{
    if (!qa_reader_sync(cache))
        return QA_LOOK_BAD;
    uint64_t at = qa_home(question->hash, cache->log2);
    for (uint64_t n = 0; n <= cache->mask; n++, at = (at + 1) & cache->mask) {
        uint64_t slot = qa_load(&cache->slots[at]);
        if (slot == QA_SLOT_EMPTY)
            break;
        if (!qa_slot_fits(slot, question->hash))
            continue;
        const char *entry =
            (const char *)cache->header + (uint64_t)qa_granule_of(slot) * QA_GRANULE;
        __builtin_prefetch(entry);
        __builtin_prefetch(entry + 64);
        __builtin_prefetch(entry + 128);
        enum qa_look look = examine(cache, question, at, slot, view);
        if (look == QA_LOOK_BAD || look == QA_LOOK_AGAIN)
            return qa_reader_retry(cache, look, at, slot);
        if (!qa_reader_is_stable(cache, view))
            return QA_LOOK_AGAIN;
        if (look == QA_LOOK_FOUND)
            return look;
    }
    return qa_load(&cache->header->table) == cache->table ? QA_LOOK_END : QA_LOOK_AGAIN;
}

static int not_found(struct qallow_cache *cache)
{
    cache->misses++;
    if (cache->hits + cache->misses >= UNCOUNTED_MAX)
        add_counts(cache);
    return qa_load(&cache->header->refused)
               ? qr_fail(QALLOW_E_LIMIT, "not in the cache, which is full")
               : qr_fail(QALLOW_E_PAGE_NOT_FOUND, "not in the cache");
}

static int look_up(struct qallow_cache *cache, const struct question *question)
{
    struct qa_view view;
    for (int tries = 0;;) {
        if (__builtin_expect(qa_load32(&cache->header->superseded) != 0, 0))
            return qa_reader_superseded(cache);
        enum qa_look look = look_once(cache, question, &view);
        if (look == QA_LOOK_END || (look == QA_LOOK_FOUND && question->file->removed))
            return not_found(cache);
        if (look != QA_LOOK_FOUND) {
            int result = qa_reader_may_retry(cache, &tries, look);
            if (result < 0)
                return result;
            continue;
        }
        cache->hits++;
        if (__builtin_expect(cache->hits + cache->misses >= UNCOUNTED_MAX, 0))
            add_counts(cache);
        if (question->buffer && !question->file->has_content)
            return qr_fail(QALLOW_E_UNAVAILABLE, "the cache does not hold the content of %s",
                           qr_quotez(question->path));
        return 0;
    }
}

int qallow_cache_get(struct qallow_cache *cache, const char *path, struct qallow_file *file)
{
    struct question question = {.path = path, .length = strlen(path), .file = file};
    question.hash = qa_path_hash(cache->seed, path, question.length);
    return look_up(cache, &question);
}

int qallow_cache_content(struct qallow_cache *cache, const char *path, void *buffer,
                         size_t capacity, struct qallow_file *file)
{
    char none;
    struct question question = {.path = path, .length = strlen(path), .file = file};
    question.buffer = capacity ? buffer : &none;
    question.capacity = capacity;
    question.hash = qa_path_hash(cache->seed, path, question.length);
    return look_up(cache, &question);
}

/* --- epochs --- */

uint64_t qallow_cache_epoch(const struct qallow_cache *cache)
{
    return qa_load(&cache->header->epoch);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int is_past(const struct qallow_cache *cache, uint64_t epoch)
{
    return qallow_cache_epoch(cache) > epoch || qa_load32(&cache->header->superseded) != 0;
}

static void spin(const struct qallow_cache *cache, uint64_t epoch, uint64_t until_ns)
{
    do
        for (int i = 0; i < SPINS_BETWEEN_CLOCK_READS; i++) {
            if (is_past(cache, epoch))
                return;
            __asm__ volatile("" ::: "memory");
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
    while (now_ns() < until_ns);
}

/* 1 if the keeper lives and has not said that it is going. */
static int has_keeper(struct qallow_cache *cache)
{
    if (qa_load32(&cache->header->state) == QALLOW_KEEPER_GONE)
        return 0;
    return qa_segment_is_locked(cache->path, &cache->lock_fd);
}

/* Sleeps until something happens, `until_ns`, or it is time to look after the keeper. */
static int sleep_a_while(struct qallow_cache *cache, uint64_t epoch, uint64_t until_ns)
{
    uint32_t value = qa_load32(&cache->header->futex);
    if (is_past(cache, epoch))
        return 0;
    int result = has_keeper(cache);
    if (result < 0)
        return result;
    if (result == 0)
        return is_past(cache, epoch) ? 0
                                     : qr_fail(QALLOW_E_UNAVAILABLE, "nobody keeps the cache of %s",
                                               qr_quotez(cache->root));
    uint64_t now = now_ns();
    if (now >= until_ns)
        return qr_fail(QALLOW_E_BUSY, "nothing has changed after epoch %llu",
                       (unsigned long long)epoch);
    uint64_t left = until_ns - now;
    result = qa_segment_sleep(&cache->header->futex, value, left < SLEEP_NS ? left : SLEEP_NS);
    if (result == -EINTR)
        return qr_fail(QALLOW_E_INTERRUPTED, "interrupted by a signal");
    if (result < 0 && result != -EAGAIN && result != -ETIMEDOUT)
        return qr_fail(QALLOW_E_IO, "cannot wait for the cache: %s", strerror(-result));
    return 0;
}

int qallow_cache_wait(struct qallow_cache *cache, uint64_t epoch, int64_t timeout_ns,
                      uint64_t spin_ns, uint64_t *now)
{
    uint64_t start = now_ns(), until = UINT64_MAX;
    int result = 0;
    if (timeout_ns >= 0)
        until = start + (uint64_t)timeout_ns;
    if (spin_ns) {
        uint64_t end = spin_ns < UINT64_MAX / 2 ? start + spin_ns : UINT64_MAX;
        spin(cache, epoch, end < until ? end : until);
    }
    add_counts(cache);
    while (result == 0 && !is_past(cache, epoch))
        result = sleep_a_while(cache, epoch, until);
    if (result == 0 && qa_load32(&cache->header->superseded))
        result = qa_reader_superseded(cache);
    if (result == 0 && now)
        *now = qallow_cache_epoch(cache);
    return result;
}

/* --- info --- */

static void read_info(struct qallow_cache *cache, struct qallow_cache_info *info)
{
    const struct qa_header *header = cache->header;
    info->keeper = (int32_t)qa_load32(&header->keeper);
    info->hash = cache->hash;
    info->hash_bytes = cache->hash_bytes;
    info->epoch = qa_load(&header->epoch);
    info->oldest_epoch = qa_load(&header->floor);
    info->files = qa_load(&header->files);
    info->bytes = qa_load(&header->bytes);
    info->refused = qa_load(&header->refused);
    info->memory = qa_load(&header->size);
    info->memory_limit = qa_load(&header->limit);
    info->updated_ns = (int64_t)qa_load(&header->updated);
    for (unsigned i = 0; cache->readers && i < QA_SHARDS; i++) {
        info->hits += qa_load(&cache->readers->shard[i].hits);
        info->misses += qa_load(&cache->readers->shard[i].misses);
    }
}

int qallow_cache_info(struct qallow_cache *cache, struct qallow_cache_info *info)
{
    struct qallow_cache_info full = QALLOW_CACHE_INFO_INIT;
    uint32_t size = info->size;
    if (qa_load32(&cache->header->superseded))
        return qa_reader_superseded(cache);
    int alive = has_keeper(cache);
    if (alive < 0)
        return alive;
    add_counts(cache);
    read_info(cache, &full);
    full.state = alive ? qa_load32(&cache->header->state) : QALLOW_KEEPER_GONE;
    if (full.state < QALLOW_KEEPER_STARTING || full.state > QALLOW_KEEPER_GONE)
        return qa_reader_damaged(cache);
    full.size = size;
    memcpy(info, &full, size < sizeof full ? size : sizeof full);
    return 0;
}

int qa_cache_numbers(struct qallow_cache *cache, uint64_t *numbers, size_t count)
{
    size_t n = count < QA_NUMBERS_MAX ? count : QA_NUMBERS_MAX;
    for (size_t i = 0; i < n; i++)
        numbers[i] = qa_load(&cache->header->numbers[i]);
    return (int)n;
}
