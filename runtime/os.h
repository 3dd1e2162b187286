/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one way from the store to the world: files, clock, randomness. Tests replace the table with
 * a simulated disk that crashes, tears, reorders, fills up and fails; nothing above knows.
 *
 * Every function returns >= 0 on success and -errno on failure. Handles are small integers that
 * mean something only to the table that gave them. Functions retry EINTR themselves; pread and
 * pwrite transfer everything or fail (pread may be short only at the end of the file).
 * Thread-safety: all functions may be called from any thread.
 */
#ifndef QR_OS_H
#define QR_OS_H

#include <stddef.h>
#include <stdint.h>

enum qr_open_mode {
    QR_OPEN_READ,        /* existing file, read only */
    QR_OPEN_WRITE,       /* existing file, read and write */
    QR_OPEN_CREATE,      /* new file, read and write; -EEXIST if it exists */
    QR_OPEN_REPLACE,     /* new or emptied file, read and write */
    QR_OPEN_CLAIM,       /* new or existing file, locked as by lock(); -EAGAIN if it is already */
};

struct qr_os {
    int version; /* of this table; 1 */
    void *context;
    int (*open)(void *context, const char *path, enum qr_open_mode mode, unsigned permissions);
    int (*close)(void *context, int file);
    int64_t (*pread)(void *context, int file, void *buffer, size_t length, uint64_t offset);
    int64_t (*pwrite)(void *context, int file, const void *buffer, size_t length, uint64_t offset);
    int64_t (*size)(void *context, int file);
    int (*truncate)(void *context, int file, uint64_t length);
    int (*sync)(void *context, int file);              /* fdatasync */
    int (*sync_directory_of)(void *context, const char *path); /* fsync of the parent directory */
    int (*rename)(void *context, const char *from, const char *to);
    int (*unlink)(void *context, const char *path);
    int (*punch)(void *context, int file, uint64_t offset, uint64_t length); /* frees the blocks */
    /* Hints that change nothing but speed; may be NULL. What will be read soon; and what has been
     * written and may go to the disk now, not only when it is synced. */
    int (*read_ahead)(void *context, int file, uint64_t offset, uint64_t length);
    int (*write_out)(void *context, int file, uint64_t offset, uint64_t length);
    int (*lock)(void *context, int file);      /* exclusive, until close; -EAGAIN if taken */
    int (*is_locked)(void *context, int file); /* 1 if another process holds the lock, else 0 */
    int64_t (*now_ns)(void *context);                  /* CLOCK_REALTIME, ns since 1970 */
    int (*random)(void *context, void *buffer, size_t length);
};

/* The operating system itself. Static storage. */
const struct qr_os *qr_os_posix(void);

/* Memory. One replaceable allocator for the whole library, so that tests can fail the n-th call.
 * qr_realloc(NULL, n) allocates; n == 0 is never passed. All return NULL when there is none. */
void *qr_malloc(size_t size);
void *qr_calloc(size_t count, size_t size);
void *qr_realloc(void *old, size_t size);
void qr_free(void *memory);
/* Makes room for one more behind the first `count` items of an array, whose capacity doubles when
 * it is full. 0, or QALLOW_E_NO_MEMORY with the array as it was. */
#define QR_GROW(items, count, capacity)                                                            \
    ((count) < (capacity) ? 0 : qr_grow(&(items), &(capacity), sizeof *(items)))
int qr_grow(void *array, size_t *capacity, size_t size);
/* `hook` is asked before each allocation; returning nonzero makes it fail. NULL removes the hook.
 * For tests; not thread-safe. */
void qr_set_allocation_hook(int (*hook)(size_t size));
/* Asks the hook: 1 if an allocation of `size` bytes is to fail. */
int qr_allocation_refused(size_t size);

/* Memory in whole pages of the system, for the pool (runtime/map.c). What takes memory or address
 * space asks the hook. `alignment` is a power of two. NULL or -1 when there is none.
 * Thread-safety: safe. */
/* Zeros that count as used where they are touched, not where they are mapped. */
void *qr_map(size_t size, size_t alignment);
/* Address space that must not be touched before qr_map_commit. */
void *qr_map_reserve(size_t size, size_t alignment);
/* Makes reserved address space usable: zeros. */
int qr_map_commit(void *at, size_t size);
/* Gives the memory back and keeps the address space, usable as before: zeros. */
void qr_map_discard(void *at, size_t size);
/* Says whether huge pages are wanted there; the system may not have them. */
void qr_map_huge(void *at, size_t size, int wanted);
void qr_unmap(void *at, size_t size);

#endif
