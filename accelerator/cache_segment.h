/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a cache: where they are, who may have them, how they are made, mapped and grown.
 * NAME is the segment, NAME.lock the keeper's lock, NAME.readers what readers count.
 */
#ifndef QA_CACHE_SEGMENT_H
#define QA_CACHE_SEGMENT_H

#include <stddef.h>
#include <stdint.h>

#include "accelerator/cache_format.h"

enum { QA_SEGMENT_PATH = 4096, QA_SEGMENT_DIRECTORIES = 3 };

/* The name of everything that belongs to the cache of `root`, in the directory-th place where it
 * may be: 1, or 0 if there is no such place ($XDG_RUNTIME_DIR is not set, the name is too long). */
int qa_segment_name(unsigned directory, const char *root, char path[QA_SEGMENT_PATH]);

/* Opens an existing file of the cache: PERMISSION if it is not ours alone or no ordinary file,
 * UNAVAILABLE if it does not exist. Sets *size (may be NULL) and returns the descriptor. */
int qa_segment_open_file(const char *path, int writable, uint64_t *size);

/* Takes PATH.lock for this process and writes its pid there. Returns the descriptor; BUSY with the
 * owner's pid, PERMISSION, CANNOT_CREATE, NO_SPACE, IO. */
int qa_segment_lock(const char *path);
/* 1 if somebody holds PATH.lock, 0 if nobody does; *fd (-1 at first) is kept open for the next
 * time. IO. */
int qa_segment_is_locked(const char *path, int *fd);

/* Makes a file of `size` bytes, all of which are reserved, under PATH.new. Returns the descriptor;
 * NO_SPACE, CANNOT_CREATE, PERMISSION, IO. */
int qa_segment_create(const char *path, uint64_t size);
/* Gives PATH.new its name. */
int qa_segment_install(const char *path);
/* The bytes [from, to) of the file exist and are reserved. NO_SPACE, IO. */
int qa_segment_reserve(int fd, uint64_t from, uint64_t to);
/* What a segment may take if nothing else is said: half of what the file system has free. */
uint64_t qa_segment_room(int fd);

/* Maps the first QA_MAP_BYTES of address space; NULL if that fails (NO_MEMORY as detail). */
void *qa_segment_map(int fd, int writable);
void qa_segment_unmap(const void *base);

/* Asks for huge pages under the bytes [from, to), as far as whole ones fit in, and returns up to
 * where that is. `from` is 0 or what was returned before. */
uint64_t qa_segment_collapse(void *base, uint64_t from, uint64_t to);

/* The readers' counters, made if `create`; NULL if they are not to be had. */
struct qa_readers *qa_segment_readers(const char *path, int create);
void qa_segment_readers_close(struct qa_readers *readers);

/* Wakes whoever sleeps on the futex, and sleeps on it: 0, or a negative errno. */
void qa_segment_wake(_Atomic uint32_t *futex);
int qa_segment_sleep(const _Atomic uint32_t *futex, uint32_t value, uint64_t timeout_ns);

/* An id that is the same until the machine starts anew; zeros if there is none. */
void qa_segment_boot_id(uint8_t id[16]);

#endif
