/* SPDX-License-Identifier: Apache-2.0 */
/* The floors of writing and reading much. See floor.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "backend/kernels.h"
#include "bench/floor.h"
#include "runtime/error.h"

enum { PIECE = 1 << 20, COLD = 512 << 20 };

int qm_cold_source_open(struct qm_cold_source *source)
{
    uint64_t seed = 7;
    *source = (struct qm_cold_source){.length = COLD};
    int rc = qm_map(source->length, &source->bytes);
    if (rc == 0)
        qm_random_fill(&seed, source->bytes, source->length);
    return rc;
}

void qm_cold_source_close(struct qm_cold_source *source)
{
    qm_unmap(source->bytes, source->length);
    *source = (struct qm_cold_source){0};
}

const uint8_t *qm_cold_source_next(struct qm_cold_source *source, size_t length)
{
    if (source->at + length > source->length)
        source->at = 0;
    source->at += length;
    return source->bytes + source->at - length;
}

int qm_floor_write_file(const char *path, uint64_t length, struct qm_cold_source *source, int sync)
{
    int rc = 0, file = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    if (file < 0)
        return qr_fail_errno(errno, "%s", qr_quotez(path));
    while (rc == 0 && length > 0) {
        size_t piece = length < PIECE ? (size_t)length : PIECE;
        if (write(file, qm_cold_source_next(source, piece), piece) != (ssize_t)piece)
            rc = qr_fail_errno(errno, "%s", qr_quotez(path));
        length -= piece;
    }
    if (rc == 0 && sync && fdatasync(file) != 0)
        rc = qr_fail_errno(errno, "%s", qr_quotez(path));
    close(file);
    return rc;
}

/* Where the pieces of a file go. */
struct target {
    uint8_t *memory;   /* NULL: nowhere */
    size_t length, at; /* length 0: the file fits */
    int check, copy;
};

static uint8_t *piece_target(const struct target *target, uint8_t *buffer)
{
    return target->memory && !target->copy ? target->memory + target->at : buffer;
}

static void take_piece(struct target *target, const uint8_t *bytes, size_t n, uint64_t *sum)
{
    if (target->check)
        *sum += qb_kernels()->hash64(bytes, n, 0);
    if (!target->copy) {
        target->at += n;
        return;
    }
    if (target->at + n > target->length)
        target->at = 0;
    memcpy(target->memory + target->at, bytes, n);
    target->at += n;
}

static int read_pieces(const char *path, struct target *target)
{
    static uint8_t buffer[PIECE];
    int rc = 0, file = open(path, O_RDONLY | O_CLOEXEC);
    uint64_t sum = 0;
    ssize_t n = 1;
    if (file < 0)
        return qr_fail_errno(errno, "%s", qr_quotez(path));
    while (rc == 0 && n > 0) {
        uint8_t *to = piece_target(target, buffer);
        n = read(file, to, PIECE);
        if (n < 0)
            rc = qr_fail_errno(errno, "%s", qr_quotez(path));
        else
            take_piece(target, to, (size_t)n, &sum);
    }
    qm_keep(&sum);
    close(file);
    return rc;
}

int qm_floor_read_file(const char *path, uint8_t *memory, int check)
{
    struct target target = {.memory = memory, .check = check};
    return read_pieces(path, &target);
}

int qm_floor_copy_file(const char *path, uint8_t *memory, size_t length)
{
    struct target target = {.memory = memory, .length = length, .check = 1, .copy = 1};
    return read_pieces(path, &target);
}
