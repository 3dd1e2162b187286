/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Floors: the least C that does a job of the store with nothing around it. Ceilings to compare
 * with, not an engine: they know neither pages that grow, names, recovery nor readers. They hash
 * with the same kernels as the store, so that what is compared is everything else.
 */
#ifndef QM_FLOOR_H
#define QM_FLOOR_H

#include "backend/kernels.h"
#include "bench/case.h"

/* --- a log of 64-byte writes to a flat state --- */

enum { QM_RECORD_BYTES = 64, QM_FLOOR_BUFFER = 64 << 10 };
struct qm_record {  /* 88 bytes */
    uint64_t check; /* of what follows */
    uint64_t offset, epoch;
    uint8_t bytes[QM_RECORD_BYTES];
};
struct qm_floor_log {
    int file;
    uint8_t *buffer, *state;
    size_t fill, state_size;
    uint64_t seed, epoch, written;
    struct qb_u128 digest;
};
int qm_floor_open(struct qm_context *context, size_t state_size, struct qm_floor_log *log);
void qm_floor_close(struct qm_floor_log *log);
/* `writes` records in a 64 KiB buffer, each also written to a random place of the state, with the
 * digest kept over the cells of 128 bytes; then a commit record, and the buffer is written out. */
int qm_floor_commit(struct qm_floor_log *log, uint64_t writes);
/* Reads the file from its start, checks every record and stores its bytes. */
int qm_floor_replay(struct qm_floor_log *log);
/* Cuts the file when it has become long; between the runs. */
int qm_floor_trim(struct qm_floor_log *log);

/* --- durable records --- */

struct qm_floor_sync {
    int file;
    uint64_t at, length;
    uint8_t *bytes;
};
/* A file whose blocks have been written before. */
int qm_floor_sync_open(struct qm_context *context, struct qm_floor_sync *log);
void qm_floor_sync_close(struct qm_floor_sync *log);
/* pwrite of one commit of 256 bytes and fdatasync. */
int qm_floor_sync_append(struct qm_floor_sync *log);

/* --- files --- */

/* Writes `length` bytes, in pieces of 1 MiB taken from a source that no cache holds, to a new file;
 * with fdatasync if `sync`. */
struct qm_cold_source {
    uint8_t *bytes;
    size_t length, at;
};
int qm_cold_source_open(struct qm_cold_source *source);
void qm_cold_source_close(struct qm_cold_source *source);
/* The next `length` (at most 1 MiB) bytes of it. */
const uint8_t *qm_cold_source_next(struct qm_cold_source *source, size_t length);
int qm_floor_write_file(const char *path, uint64_t length, struct qm_cold_source *source, int sync);
/* Reads a file from the start in pieces of 1 MiB, into `memory` (its length must suffice) or, if
 * that is NULL, into one buffer; `check` hashes each piece. */
int qm_floor_read_file(const char *path, uint8_t *memory, int check);
/* Reads a file in pieces of 1 MiB, hashes each and copies it to the next place of `memory`, from
 * whose end it goes on at the start. */
int qm_floor_copy_file(const char *path, uint8_t *memory, size_t length);

#endif
