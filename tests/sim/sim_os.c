/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See sim_os.h. Names and inodes are separate: a name table for what programs see, one for what is
 * durable, and a list of the changes between; an inode has the same three for its content. Inodes
 * live as long as the disk, because a crash may bring any of them back.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "inode.h"
#include "sim_os.h"

enum { HANDLES = 64 };

struct name {
    char *path;
    struct inode *inode;
};
struct names {
    struct name *items;
    size_t count, capacity;
};

/* A change of names: `from` goes (unlink, rename), `to` comes (create, rename); either may be
 * NULL. */
struct name_change {
    char *from, *to;
    struct inode *inode; /* that `to` stands for */
};

struct handle {
    struct inode *inode; /* NULL: free */
    int writable, locked;
};

struct sim {
    struct qr_os os;
    pthread_mutex_t lock; /* recursive: the hook runs inside */
    uint64_t random;
    int64_t now_ns;
    struct inode *inodes;
    struct names seen, durable;
    struct name_change *pending;
    size_t pending_count, pending_capacity;
    struct handle handles[HANDLES];
    uint64_t counts[16]; /* by bit number of the kind */
    uint64_t bytes_written, capacity;
    uint64_t stop_at;
    unsigned fail_kinds;
    uint64_t fail_in; /* operations until the failure; 1: the next */
    int fail_error, fail_sticky, failed;
    void (*hook)(void *context, enum sim_kind kind);
    void *hook_context;
};

uint64_t sim_below(uint64_t *state, uint64_t n) { return n ? next_random(state) % n : 0; }

static char *copy_text(const char *text)
{
    return text ? memcpy(sim_allocate(strlen(text) + 1), text, strlen(text)) : NULL;
}

/* --- names --- */

static struct name *find_name(const struct names *names, const char *path)
{
    for (size_t i = 0; i < names->count; i++) {
        if (strcmp(names->items[i].path, path) == 0)
            return &names->items[i];
    }
    return NULL;
}

static void remove_name(struct names *names, const char *path)
{
    struct name *name = find_name(names, path);
    if (name) {
        free(name->path);
        *name = names->items[--names->count];
    }
}

static void set_name(struct names *names, const char *path, struct inode *inode)
{
    remove_name(names, path);
    names->items = sim_grow(names->items, names->count, &names->capacity, sizeof *names->items);
    names->items[names->count++] = (struct name){copy_text(path), inode};
}

static void apply_name_change(struct names *names, const struct name_change *change)
{
    if (change->from)
        remove_name(names, change->from);
    if (change->to)
        set_name(names, change->to, change->inode);
}

static void change_names(struct sim *sim, const char *from, const char *to, struct inode *inode)
{
    struct name_change change = {copy_text(from), copy_text(to), inode};
    apply_name_change(&sim->seen, &change);
    sim->pending = sim_grow(sim->pending, sim->pending_count, &sim->pending_capacity,
                            sizeof *sim->pending);
    sim->pending[sim->pending_count++] = change;
}

static int touches(const struct name_change *change, const char *path)
{
    return path && ((change->from && strcmp(change->from, path) == 0) ||
                    (change->to && strcmp(change->to, path) == 0));
}

static size_t directory_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) : 0;
}

static int same_directory(const char *a, const char *b)
{
    size_t length = directory_length(a);
    return length == directory_length(b) && memcmp(a, b, length) == 0;
}

/* Makes the pending changes in the directory of `path` durable; the others stay pending. */
static void make_names_durable(struct sim *sim, const char *path)
{
    size_t left = 0;
    for (size_t i = 0; i < sim->pending_count; i++) {
        struct name_change *change = &sim->pending[i];
        if (same_directory(change->to ? change->to : change->from, path)) {
            apply_name_change(&sim->durable, change);
            free(change->from);
            free(change->to);
        } else {
            sim->pending[left++] = *change;
        }
    }
    sim->pending_count = left;
}

static void finish_names(struct names *names)
{
    while (names->count > 0)
        free(names->items[--names->count].path);
    free(names->items);
}

static struct inode *new_inode(struct sim *sim)
{
    struct inode *inode = sim_allocate(sizeof *inode);
    inode->next = sim->inodes;
    sim->inodes = inode;
    return inode;
}

/* The names that the disk has after a crash: a subset of the pending changes in which each finds
 * the names as it left them. */
static void land_names(struct sim *sim, struct names *names, uint64_t *random, unsigned flags)
{
    size_t count = sim->pending_count;
    uint8_t *kept = sim_allocate(count);
    size_t moment = sim_below(random, count + 1);
    enum { ALL, NONE, MOMENT, ANY } how = flags & SIM_KEEP_ALL   ? ALL
                                          : flags & SIM_DROP_ALL ? NONE
                                                                 : sim_below(random, 4);
    for (size_t i = 0; i < count; i++) {
        const struct name_change *change = &sim->pending[i];
        kept[i] = how == ALL || (how == MOMENT && i < moment) ||
                  (how == ANY && sim_below(random, 2));
        for (size_t j = 0; j < i; j++) {
            if (!kept[j] && (touches(change, sim->pending[j].from) ||
                             touches(change, sim->pending[j].to)))
                kept[i] = 0;
        }
        if (kept[i])
            apply_name_change(names, change);
    }
    free(kept);
}

static struct names copy_names(const struct names *names)
{
    struct names copy = {0};
    for (size_t i = 0; i < names->count; i++)
        set_name(&copy, names->items[i].path, names->items[i].inode);
    return copy;
}

struct sim *sim_crash(struct sim *sim, uint64_t seed, unsigned flags)
{
    struct sim *image = sim_create(seed);
    pthread_mutex_lock(&sim->lock);
    struct names names = copy_names(&sim->durable);
    land_names(sim, &names, &seed, flags);
    for (size_t i = 0; i < names.count; i++) {
        struct inode *inode = new_inode(image);
        inode->durable = inode_land(names.items[i].inode, &seed, flags);
        inode->seen = sim_content_clone(&inode->durable);
        set_name(&image->seen, names.items[i].path, inode);
        set_name(&image->durable, names.items[i].path, inode);
    }
    image->now_ns = sim->now_ns;
    image->capacity = sim->capacity;
    pthread_mutex_unlock(&sim->lock);
    finish_names(&names);
    return image;
}

/* --- operations --- */

static unsigned bit_number(unsigned kind) { return (unsigned)__builtin_ctz(kind); }

/* Called under the lock at the start of every operation: counts it, and decides whether it is to
 * fail. 0 or -errno. */
static int begin(struct sim *sim, enum sim_kind kind)
{
    if (kind & SIM_CHANGES && sim->hook)
        sim->hook(sim->hook_context, kind);
    sim->counts[bit_number(kind)]++;
    if (sim->stop_at && sim_count(sim, SIM_CHANGES) >= sim->stop_at)
        return -EIO;
    if (!(kind & sim->fail_kinds) || sim->fail_in == 0)
        return 0;
    if (sim->fail_in > 1) {
        sim->fail_in--;
        return 0;
    }
    if (!sim->fail_sticky)
        sim->fail_in = 0;
    sim->failed = 1;
    return -sim->fail_error;
}

static struct sim *enter(void *context)
{
    struct sim *sim = context;
    pthread_mutex_lock(&sim->lock);
    return sim;
}

static int leave(struct sim *sim, int result)
{
    pthread_mutex_unlock(&sim->lock);
    return result;
}

static struct inode *inode_of(struct sim *sim, int file)
{
    return file >= 0 && file < HANDLES ? sim->handles[file].inode : NULL;
}

static struct inode *writable_inode_of(struct sim *sim, int file)
{
    struct inode *inode = inode_of(sim, file);
    return inode && sim->handles[file].writable ? inode : NULL;
}

/* The inode that open(path, mode) means, made if need be; or NULL with -errno in *result. */
static struct inode *open_inode(struct sim *sim, const char *path, enum qr_open_mode mode,
                                int *result)
{
    struct name *name = find_name(&sim->seen, path);
    struct inode *inode = name ? name->inode : NULL;
    *result = !name && mode <= QR_OPEN_WRITE          ? -ENOENT
              : name && mode == QR_OPEN_CREATE ? -EEXIST
                                               : 0;
    if (*result < 0)
        return NULL;
    if (inode && mode == QR_OPEN_REPLACE)
        inode_change(inode, (struct change){.kind = CHANGE_RESIZE});
    if (!inode) {
        inode = new_inode(sim);
        change_names(sim, NULL, path, inode);
    }
    return inode;
}

static int is_locked_elsewhere(const struct sim *sim, int file)
{
    for (int i = 0; i < HANDLES; i++) {
        if (i != file && sim->handles[i].locked &&
            sim->handles[i].inode == sim->handles[file].inode)
            return 1;
    }
    return 0;
}

static int sim_open(void *context, const char *path, enum qr_open_mode mode, unsigned permissions)
{
    struct sim *sim = enter(context);
    int result = begin(sim, mode >= QR_OPEN_CREATE ? SIM_CREATE : SIM_OPEN), file = 0;
    while (file < HANDLES && sim->handles[file].inode)
        file++;
    if (result == 0 && file == HANDLES)
        result = -EMFILE;
    struct inode *inode = result == 0 ? open_inode(sim, path, mode, &result) : NULL;
    if (inode) {
        sim->handles[file] = (struct handle){inode, mode != QR_OPEN_READ, 0};
        result = file;
        if (mode == QR_OPEN_CLAIM && is_locked_elsewhere(sim, file)) {
            sim->handles[file].inode = NULL;
            result = -EAGAIN;
        }
        sim->handles[file].locked = mode == QR_OPEN_CLAIM && result == file;
    }
    return leave(sim, result);
}

/* Closes also when it fails. */
static int sim_close(void *context, int file)
{
    struct sim *sim = enter(context);
    int result = begin(sim, SIM_CLOSE);
    if (inode_of(sim, file))
        sim->handles[file] = (struct handle){NULL, 0, 0};
    else
        result = -EBADF;
    return leave(sim, result);
}

static int64_t sim_pread(void *context, int file, void *buffer, size_t length, uint64_t offset)
{
    struct sim *sim = enter(context);
    struct inode *inode = inode_of(sim, file);
    int64_t result = begin(sim, SIM_READ);
    if (!inode)
        result = -EBADF;
    else if (offset > INT64_MAX)
        result = -EINVAL;
    else if (result == 0 && offset < inode->seen.size) {
        uint64_t left = inode->seen.size - offset;
        length = length < left ? length : (size_t)left;
        sim_content_read(&inode->seen, offset, buffer, length);
        result = (int64_t)length;
    }
    pthread_mutex_unlock(&sim->lock);
    return result;
}

static int is_named(const struct sim *sim, const struct inode *inode)
{
    for (size_t i = 0; i < sim->seen.count; i++) {
        if (sim->seen.items[i].inode == inode)
            return 1;
    }
    for (size_t i = 0; i < HANDLES; i++) {
        if (sim->handles[i].inode == inode)
            return 1;
    }
    return 0;
}

/* How many of `length` bytes at `offset` find room. */
static size_t room_for(const struct sim *sim, const struct inode *target, uint64_t offset,
                       size_t length)
{
    uint64_t used = 0;
    if (!sim->capacity)
        return length;
    for (const struct inode *inode = sim->inodes; inode; inode = inode->next) {
        if (is_named(sim, inode))
            used += sim_content_blocks(&inode->seen);
    }
    for (size_t more; length > 0;) {
        more = sim_content_new_blocks(&target->seen, offset, length);
        if (more == 0 || (used + more) * SIM_BLOCK <= sim->capacity)
            break;
        uint64_t last = (offset + length - 1) / SIM_BLOCK * SIM_BLOCK; /* without its last block */
        length = last > offset ? (size_t)(last - offset) : 0;
    }
    return length;
}

static int64_t sim_pwrite(void *context, int file, const void *buffer, size_t length,
                          uint64_t offset)
{
    struct sim *sim = enter(context);
    struct inode *inode = writable_inode_of(sim, file);
    int64_t result = begin(sim, SIM_WRITE);
    size_t written = length;
    if (!inode)
        result = -EBADF;
    else if (offset > INT64_MAX)
        result = -EINVAL;
    if (result < 0) /* a part may have got through, unless the machine has stopped */
        written = inode && !sim->stop_at ? sim_below(&sim->random, length + 1) : 0;
    else
        written = room_for(sim, inode, offset, length);
    if (written > 0) {
        uint8_t *bytes = memcpy(sim_allocate(written), buffer, written);
        inode_change(inode, (struct change){CHANGE_WRITE, offset, written, bytes});
        sim->bytes_written += written;
    }
    if (result == 0)
        result = written < length ? -ENOSPC : (int64_t)length;
    pthread_mutex_unlock(&sim->lock);
    return result;
}

static int64_t sim_size(void *context, int file)
{
    struct sim *sim = enter(context);
    struct inode *inode = inode_of(sim, file);
    int64_t result = begin(sim, SIM_SIZE);
    if (!inode)
        result = -EBADF;
    else if (result == 0)
        result = (int64_t)inode->seen.size;
    pthread_mutex_unlock(&sim->lock);
    return result;
}

static int sim_truncate(void *context, int file, uint64_t length)
{
    struct sim *sim = enter(context);
    struct inode *inode = writable_inode_of(sim, file);
    int result = begin(sim, SIM_TRUNCATE);
    if (!inode || length > INT64_MAX)
        result = -EINVAL;
    if (result == 0)
        inode_change(inode, (struct change){.kind = CHANGE_RESIZE, .offset = length});
    return leave(sim, result);
}

static int sim_sync(void *context, int file)
{
    struct sim *sim = enter(context);
    struct inode *inode = inode_of(sim, file);
    int result = begin(sim, SIM_SYNC);
    if (!inode) {
        result = -EBADF;
    } else if (result == 0) {
        inode_make_durable(inode);
    } else if (!sim->stop_at) {
        inode_fail_sync(inode, &sim->random);
    }
    return leave(sim, result);
}

static int sim_sync_directory_of(void *context, const char *path)
{
    struct sim *sim = enter(context);
    int result = begin(sim, SIM_SYNC_DIRECTORY);
    if (result == 0)
        make_names_durable(sim, path);
    return leave(sim, result);
}

static int sim_rename(void *context, const char *from, const char *to)
{
    struct sim *sim = enter(context);
    int result = begin(sim, SIM_RENAME);
    struct name *name = find_name(&sim->seen, from);
    if (result == 0 && !name)
        result = -ENOENT;
    if (result == 0 && strcmp(from, to) != 0)
        change_names(sim, from, to, name->inode);
    return leave(sim, result);
}

static int sim_unlink(void *context, const char *path)
{
    struct sim *sim = enter(context);
    int result = begin(sim, SIM_UNLINK);
    if (result == 0 && !find_name(&sim->seen, path))
        result = -ENOENT;
    if (result == 0)
        change_names(sim, path, NULL, NULL);
    return leave(sim, result);
}

static int sim_punch(void *context, int file, uint64_t offset, uint64_t length)
{
    struct sim *sim = enter(context);
    struct inode *inode = writable_inode_of(sim, file);
    int result = begin(sim, SIM_PUNCH);
    if (!inode || length == 0)
        result = -EINVAL;
    if (result == 0)
        inode_change(inode, (struct change){CHANGE_PUNCH, offset, length, NULL});
    return leave(sim, result);
}

static int sim_lock(void *context, int file)
{
    struct sim *sim = enter(context);
    int result = begin(sim, SIM_LOCK);
    if (!writable_inode_of(sim, file))
        result = -EBADF;
    else if (result == 0 && is_locked_elsewhere(sim, file))
        result = -EAGAIN;
    if (result == 0)
        sim->handles[file].locked = 1;
    return leave(sim, result);
}

static int sim_is_locked(void *context, int file)
{
    struct sim *sim = enter(context);
    int result = begin(sim, SIM_LOCK);
    if (!inode_of(sim, file))
        result = -EBADF;
    else if (result == 0)
        result = is_locked_elsewhere(sim, file);
    return leave(sim, result);
}

/* Goes forward by up to a millisecond a call, and now and then a second back, as clocks do. */
static int64_t sim_now_ns(void *context)
{
    struct sim *sim = enter(context);
    if (sim_below(&sim->random, 64) == 0)
        sim->now_ns -= 1000000000;
    sim->now_ns += (int64_t)sim_below(&sim->random, 1000000);
    int64_t result = sim->now_ns;
    pthread_mutex_unlock(&sim->lock);
    return result;
}

static int sim_random_bytes(void *context, void *buffer, size_t length)
{
    struct sim *sim = enter(context);
    int result = begin(sim, SIM_RANDOM);
    for (size_t i = 0; result == 0 && i < length; i++)
        ((uint8_t *)buffer)[i] = (uint8_t)next_random(&sim->random);
    return leave(sim, result);
}

struct sim *sim_create(uint64_t seed)
{
    struct sim *sim = sim_allocate(sizeof *sim);
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&sim->lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    sim->random = seed;
    sim->now_ns = INT64_C(1769904000000000000); /* 2026-02-01 */
    sim->os = (struct qr_os){
        .version = 1,
        .context = sim,
        .open = sim_open,
        .close = sim_close,
        .pread = sim_pread,
        .pwrite = sim_pwrite,
        .size = sim_size,
        .truncate = sim_truncate,
        .sync = sim_sync,
        .sync_directory_of = sim_sync_directory_of,
        .rename = sim_rename,
        .unlink = sim_unlink,
        .punch = sim_punch,
        .lock = sim_lock,
        .is_locked = sim_is_locked,
        .now_ns = sim_now_ns,
        .random = sim_random_bytes,
    };
    return sim;
}

void sim_destroy(struct sim *sim)
{
    if (!sim)
        return;
    while (sim->inodes) {
        struct inode *inode = sim->inodes;
        sim->inodes = inode->next;
        inode_free(inode);
    }
    finish_names(&sim->seen);
    finish_names(&sim->durable);
    while (sim->pending_count > 0) {
        struct name_change *change = &sim->pending[--sim->pending_count];
        free(change->from);
        free(change->to);
    }
    free(sim->pending);
    pthread_mutex_destroy(&sim->lock);
    free(sim);
}

const struct qr_os *sim_os(struct sim *sim) { return &sim->os; }

void sim_stop_at(struct sim *sim, uint64_t change) { sim->stop_at = change; }

void sim_set_hook(struct sim *sim, void (*hook)(void *context, enum sim_kind kind), void *context)
{
    sim->hook = hook;
    sim->hook_context = context;
}

void sim_fail(struct sim *sim, unsigned kinds, uint64_t nth, int error, int sticky)
{
    sim->fail_kinds = kinds;
    sim->fail_in = nth;
    sim->fail_error = error;
    sim->fail_sticky = sticky;
    sim->failed = 0;
}

int sim_has_failed(const struct sim *sim) { return sim->failed; }

void sim_set_capacity(struct sim *sim, uint64_t bytes) { sim->capacity = bytes; }

uint64_t sim_count(const struct sim *sim, unsigned kinds)
{
    uint64_t count = 0;
    for (; kinds; kinds &= kinds - 1)
        count += sim->counts[bit_number(kinds)];
    return count;
}

uint64_t sim_bytes_written(const struct sim *sim) { return sim->bytes_written; }

unsigned sim_open_files(const struct sim *sim)
{
    unsigned count = 0;
    for (size_t i = 0; i < HANDLES; i++)
        count += sim->handles[i].inode != NULL;
    return count;
}

uint8_t *sim_dump(struct sim *sim, const char *path, size_t *length)
{
    struct name *name = find_name(&sim->seen, path);
    if (!name)
        return NULL;
    *length = (size_t)name->inode->seen.size;
    uint8_t *bytes = sim_allocate(*length);
    sim_content_read(&name->inode->seen, 0, bytes, *length);
    return bytes;
}

void sim_load(struct sim *sim, const char *path, const void *bytes, size_t length)
{
    struct inode *inode = new_inode(sim);
    sim_content_write(&inode->durable, 0, bytes, length);
    inode->durable.size = length;
    inode->seen = sim_content_clone(&inode->durable);
    set_name(&sim->seen, path, inode);
    set_name(&sim->durable, path, inode);
}

const char *sim_file_name(const struct sim *sim, size_t i)
{
    return i < sim->seen.count ? sim->seen.items[i].path : NULL;
}
