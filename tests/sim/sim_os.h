/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk in memory behind struct qr_os, which can lose everything that a real one may lose.
 *
 * What a program sees is the volatile state. Beside it stands what is durable, and between them
 * the list of operations that no sync has covered. A crash makes a new disk from the durable state
 * and a seeded choice among the pending operations:
 *   contents    each 512-byte sector takes the content it had at some moment since the last sync of
 *               its file, independently of its neighbours: so writes are kept, dropped, torn and
 *               reordered. Sizes, truncations and holes land up to some moment of their own.
 *   names       creates, renames and unlinks since the last sync of their directory are kept or
 *               not, in any way in which each kept one finds what it needs. Syncing a file does
 *               not make its name durable, nor the other way round.
 *   bit flips   (SIM_FLIP_BITS) hit bytes written since the last sync, never others.
 * A failed sync is the end of what it should have written: a part lands, the rest is forgotten, the
 * program keeps seeing the new content, and the next sync succeeds without writing it. Like Linux.
 *
 * Everything is decided by seeds: the same seed gives the same run. Any thread may call.
 */
#ifndef SIM_OS_H
#define SIM_OS_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/os.h"
#include "tests/random.h"

struct sim;

/* Operations by kind; a set of them is a mask. */
enum sim_kind {
    SIM_OPEN = 1 << 0,
    SIM_CREATE = 1 << 1, /* an open that makes or empties a file */
    SIM_CLOSE = 1 << 2,
    SIM_READ = 1 << 3,
    SIM_SIZE = 1 << 4,
    SIM_WRITE = 1 << 5,
    SIM_TRUNCATE = 1 << 6,
    SIM_SYNC = 1 << 7,
    SIM_SYNC_DIRECTORY = 1 << 8,
    SIM_RENAME = 1 << 9,
    SIM_UNLINK = 1 << 10,
    SIM_PUNCH = 1 << 11,
    SIM_RANDOM = 1 << 12,
    SIM_LOCK = 1 << 13,
    SIM_CHANGES = SIM_CREATE | SIM_WRITE | SIM_TRUNCATE | SIM_SYNC | SIM_SYNC_DIRECTORY |
                  SIM_RENAME | SIM_UNLINK | SIM_PUNCH,
    SIM_ANY = (1 << 14) - 1,
};

/* An empty disk. */
struct sim *sim_create(uint64_t seed);
void sim_destroy(struct sim *sim);
const struct qr_os *sim_os(struct sim *sim);

/* --- crashes --- */

enum sim_crash {
    SIM_RANDOM_LOSS = 0,  /* the seed decides how much and what */
    SIM_KEEP_ALL = 1,     /* only the process dies: kill -9 */
    SIM_DROP_ALL = 2,     /* nothing unsynced survives */
    SIM_FLIP_BITS = 4,    /* may be added to SIM_RANDOM_LOSS or SIM_KEEP_ALL */
};
/* The disk as it may be found after a power cut now. `sim` itself goes on unharmed. */
struct sim *sim_crash(struct sim *sim, uint64_t seed, unsigned flags);
/* From the `change`-th of SIM_CHANGES on (1 is the first) every operation fails with -EIO and does
 * nothing. 0: never. */
void sim_stop_at(struct sim *sim, uint64_t change);
/* Called before each of SIM_CHANGES is done; may call sim_crash. NULL: no more. */
void sim_set_hook(struct sim *sim, void (*hook)(void *context, enum sim_kind kind), void *context);

/* --- failures --- */

/* The nth operation (1 is the next) of one of `kinds` fails with -error; if sticky, all later ones
 * too. A failed write may have written a part. nth 0: no failure. */
void sim_fail(struct sim *sim, unsigned kinds, uint64_t nth, int error, int sticky);
int sim_has_failed(const struct sim *sim); /* whether a failure was delivered */
/* Room for this many bytes, in 4 KiB blocks; beyond it writes fail with -ENOSPC. 0: no limit. */
void sim_set_capacity(struct sim *sim, uint64_t bytes);

/* --- looking in from outside (nothing of this counts as an operation) --- */

uint64_t sim_count(const struct sim *sim, unsigned kinds); /* operations so far */
uint64_t sim_bytes_written(const struct sim *sim);
unsigned sim_open_files(const struct sim *sim);
/* The volatile content; NULL if there is no such file. The caller frees it. */
uint8_t *sim_dump(struct sim *sim, const char *path, size_t *length);
/* Makes `path` exist durably with this content. */
void sim_load(struct sim *sim, const char *path, const void *bytes, size_t length);
/* The name of the i-th file, NULL behind the last one. Valid until the next change. */
const char *sim_file_name(const struct sim *sim, size_t i);

/* A random number in [0, n); see tests/random.h. */
uint64_t sim_below(uint64_t *state, uint64_t n);

#endif
