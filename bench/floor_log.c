/* SPDX-License-Identifier: Apache-2.0 */
/* The floor of committing small writes, buffered and durable. See floor.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "backend/kernels.h"
#include "bench/floor.h"
#include "runtime/error.h"

int qm_floor_open(struct qm_context *context, size_t state_size, struct qm_floor_log *log)
{
    const char *path = qm_path(context, "floor.log");
    *log = (struct qm_floor_log){.file = -1, .state_size = state_size, .seed = 1};
    int rc = qm_map(state_size, &log->state);
    if (rc == 0)
        rc = qm_map(QM_FLOOR_BUFFER, &log->buffer);
    if (rc < 0)
        return rc;
    log->file = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    return log->file < 0 ? qr_fail_errno(errno, "%s", qr_quotez(path)) : 0;
}

void qm_floor_close(struct qm_floor_log *log)
{
    if (log->buffer && log->file >= 0)
        close(log->file);
    qm_unmap(log->state, log->state_size);
    qm_unmap(log->buffer, QM_FLOOR_BUFFER);
    *log = (struct qm_floor_log){.file = -1};
}

static int write_out(struct qm_floor_log *log)
{
    size_t done = 0;
    while (done < log->fill) {
        ssize_t n = write(log->file, log->buffer + done, log->fill - done);
        if (n < 0 && errno != EINTR)
            return qr_fail_errno(errno, "the log of the floor");
        done += n > 0 ? (size_t)n : 0;
    }
    log->written += log->fill;
    log->fill = 0;
    return 0;
}

static int append(struct qm_floor_log *log, const struct qm_record *record)
{
    if (log->fill + sizeof *record > QM_FLOOR_BUFFER) {
        int rc = write_out(log);
        if (rc < 0)
            return rc;
    }
    memcpy(log->buffer + log->fill, record, sizeof *record);
    log->fill += sizeof *record;
    return 0;
}

static void store_bytes(struct qm_floor_log *log, const struct qb_kernels *k,
                        const struct qm_record *record)
{
    uint64_t cell = record->offset / QB_CELL;
    uint8_t *at = log->state + cell * QB_CELL;
    log->digest = qb_u128_sub(log->digest, k->hash_cells(at, QB_CELL, 1, cell));
    memcpy(log->state + record->offset, record->bytes, sizeof record->bytes);
    log->digest = qb_u128_add(log->digest, k->hash_cells(at, QB_CELL, 1, cell));
}

int qm_floor_commit(struct qm_floor_log *log, uint64_t writes)
{
    const struct qb_kernels *k = qb_kernels();
    struct qm_record record = {.epoch = ++log->epoch};
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < writes; i++) {
        uint64_t r = qm_random(&log->seed);
        record.offset = r % (log->state_size / 64) * 64;
        for (size_t b = 0; b < sizeof record.bytes; b += 8)
            memcpy(record.bytes + b, &r, 8);
        record.check = k->hash64(&record.offset, sizeof record - 8, 0);
        rc = append(log, &record);
        store_bytes(log, k, &record);
    }
    record.offset = UINT64_MAX; /* the commit, with the digest */
    memcpy(record.bytes, &log->digest, sizeof log->digest);
    record.check = k->hash64(&record.offset, sizeof record - 8, 0);
    if (rc == 0)
        rc = append(log, &record);
    return rc < 0 ? rc : write_out(log);
}

int qm_floor_replay(struct qm_floor_log *log)
{
    const struct qb_kernels *k = qb_kernels();
    struct qm_record record;
    size_t length, whole = QM_FLOOR_BUFFER / sizeof record * sizeof record;
    ssize_t n;
    for (uint64_t from = 0; (n = pread(log->file, log->buffer, whole, (off_t)from)) > 0;
         from += length) {
        length = (size_t)n / sizeof record * sizeof record;
        for (size_t at = 0; at < length; at += sizeof record) {
            memcpy(&record, log->buffer + at, sizeof record);
            if (record.check != k->hash64(&record.offset, sizeof record - 8, 0))
                return qr_fail(QALLOW_E_INTERNAL, "the floor's log is wrong");
            if (record.offset < log->state_size)
                memcpy(log->state + record.offset, record.bytes, sizeof record.bytes);
        }
    }
    return n < 0 ? qr_fail_errno(errno, "the log of the floor") : 0;
}

int qm_floor_trim(struct qm_floor_log *log)
{
    if (log->written < UINT64_C(256) << 20)
        return 0;
    log->written = 0;
    if (ftruncate(log->file, 0) != 0 || lseek(log->file, 0, SEEK_SET) != 0)
        return qr_fail_errno(errno, "the log of the floor");
    return 0;
}

/* --- durable records --- */

enum { SYNC_LENGTH = 16 << 20, SYNC_RECORD = 256 };

int qm_floor_sync_open(struct qm_context *context, struct qm_floor_sync *log)
{
    const char *path = qm_path(context, "floor-sync.log");
    *log = (struct qm_floor_sync){.file = -1, .length = SYNC_LENGTH};
    int rc = qm_map(SYNC_LENGTH, &log->bytes);
    if (rc < 0)
        return rc;
    log->file = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    if (log->file < 0 || pwrite(log->file, log->bytes, SYNC_LENGTH, 0) != SYNC_LENGTH ||
        fsync(log->file) != 0)
        return qr_fail_errno(errno, "%s", qr_quotez(path));
    return 0;
}

void qm_floor_sync_close(struct qm_floor_sync *log)
{
    if (log->bytes && log->file >= 0)
        close(log->file);
    qm_unmap(log->bytes, SYNC_LENGTH);
    *log = (struct qm_floor_sync){.file = -1};
}

int qm_floor_sync_append(struct qm_floor_sync *log)
{
    if (log->at + SYNC_RECORD > log->length)
        log->at = 0;
    log->bytes[log->at] ^= 1;
    if (pwrite(log->file, log->bytes + log->at, SYNC_RECORD, (off_t)log->at) != SYNC_RECORD ||
        fdatasync(log->file) != 0)
        return qr_fail_errno(errno, "the log of the floor");
    log->at += SYNC_RECORD;
    return 0;
}
