/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LOG.consumers. Format: docs/formats/consumers.md; in short: slots of 1024 bytes, each with two
 * halves, of which the valid one with the larger sequence counts:
 *
 *     0    magic "QALLOWCN"      40   epoch
 *     8    version 1 (u32)       48   time
 *     12   length of the name    56   name
 *     16   uuid of the log       504  XXH3-64 of what is before it
 *     32   sequence
 *
 * Validity: magic, version, checksum, a name of 1 to 255 bytes, the uuid of this log. A slot
 * without a valid half is free. Who writes holds a lock on the file, readers need none: a half that
 * is being written is not valid, and the other one is.
 *
 * Order of writes: before a slot is taken, the directory is synced, so that no slot is in a file
 * that a crash takes away; then the older half is written, and synced: a crash leaves what was said
 * before. If that fails, the half is spoilt: it is seen, but perhaps not on the disk, and whoever
 * comes next would write over the other one, which is.
 */
#include "runtime/consumers.h"

#include <errno.h>
#include <stdio.h>

#include "runtime/bytes.h"
#include "runtime/error.h"
#include "runtime/store_internal.h"

enum { HALF = 512, SLOT = 2 * HALF, SUM_AT = 504, NAME_AT = 56, SLOTS_MAX = 4096 };
#define MAGIC UINT64_C(0x4E43574F4C4C4151) /* "QALLOWCN" */

struct slot {
    struct qr_consumer consumer;
    uint64_t sequence; /* 0: the slot is free */
    unsigned half;     /* that counts */
};

/* 1: the half is valid, of this log, and newer than what `slot` has. */
static int read_half(const struct qr_store *store, const uint8_t *h, unsigned half,
                     struct slot *slot)
{
    uint32_t length = qr_load32(h + 12);
    uint64_t sequence = qr_load64(h + 32);
    if (qr_load64(h) != MAGIC || qr_load32(h + 8) != 1 ||
        qr_load64(h + SUM_AT) != qb_kernels()->hash64(h, SUM_AT, 0) || length == 0 ||
        length > QR_CONSUMER_NAME_MAX || memcmp(h + 16, store->log->header.uuid, 16) != 0 ||
        sequence <= slot->sequence)
        return 0;
    *slot = (struct slot){.sequence = sequence, .half = half};
    memcpy(slot->consumer.name, h + NAME_AT, length);
    slot->consumer.epoch = qr_load64(h + 40);
    slot->consumer.time_ns = (int64_t)qr_load64(h + 48);
    return 1;
}

/* 1: there is a slot of this number; 0: the file ends; or an error. */
static int read_slot(const struct qr_store *store, int file, uint64_t number, struct slot *slot)
{
    uint8_t bytes[SLOT];
    const struct qr_os *os = store->os;
    int64_t n = os->pread(os->context, file, bytes, sizeof bytes, number * SLOT);
    *slot = (struct slot){.sequence = 0};
    if (n < 0)
        return qr_fail_errno((int)-n, "%s.consumers", qr_quotez(store->path));
    if (n < SLOT || number == SLOTS_MAX)
        return 0;
    read_half(store, bytes, 0, slot);
    read_half(store, bytes + HALF, 1, slot);
    return 1;
}

/* The file; -1 if there is none and `create` is 0. */
static int open_file(const struct qr_store *store, int create, int *file)
{
    const struct qr_os *os = store->os;
    char *path = qr_path_with(store->path, ".consumers");
    if (!path)
        return qr_fail(QALLOW_E_NO_MEMORY, "consumers");
    int opened = os->open(os->context, path, create ? QR_OPEN_WRITE : QR_OPEN_READ, 0);
    if (opened == -ENOENT && create) {
        opened = os->open(os->context, path, QR_OPEN_CREATE, 0600);
        if (opened == -EEXIST)
            opened = os->open(os->context, path, QR_OPEN_WRITE, 0);
    }
    int rc = opened >= 0 || opened == -ENOENT ? 0 : qr_fail_errno(-opened, "%s", qr_quotez(path));
    qr_free(path);
    *file = opened;
    return rc;
}

int qr_consumers_each(struct qr_store *store,
                      int (*visit)(void *context, const struct qr_consumer *consumer),
                      void *context)
{
    struct slot slot;
    int file, found, rc = open_file(store, 0, &file);
    if (rc || file < 0)
        return rc;
    for (uint64_t i = 0; !rc && (found = read_slot(store, file, i, &slot)) != 0; i++)
        rc = found < 0 ? found : slot.sequence ? visit(context, &slot.consumer) : 0;
    store->os->close(store->os->context, file);
    return rc;
}

/* --- writing --- */

/* The slot of a name, else the first free one. */
static int find(const struct qr_store *store, int file, const char *name, uint64_t *number,
                struct slot *slot)
{
    struct slot here;
    int found, is_free = 0;
    uint64_t i = 0;
    for (; (found = read_slot(store, file, i, &here)) > 0; i++) {
        if (here.sequence && strcmp(here.consumer.name, name) == 0) {
            *number = i;
            *slot = here;
            return 0;
        }
        if (!here.sequence && !is_free) {
            is_free = 1;
            *number = i;
        }
    }
    *slot = (struct slot){.half = 1};
    if (!is_free)
        *number = i;
    return !found && *number == SLOTS_MAX ? qr_fail(QALLOW_E_LIMIT, "%s: it has %d consumers",
                                                    qr_quotez(store->path), SLOTS_MAX)
                                          : found;
}

static int write_bytes(const struct qr_store *store, int file, const uint8_t *bytes, size_t length,
                       uint64_t at)
{
    static const uint8_t zeros[SLOT];
    const struct qr_os *os = store->os;
    int64_t rc = os->pwrite(os->context, file, bytes, length, at);
    if (rc >= 0)
        rc = os->sync(os->context, file);
    if (rc < 0)
        os->pwrite(os->context, file, zeros, length, at);
    return rc < 0 ? qr_fail_errno((int)-rc, "%s.consumers", qr_quotez(store->path)) : 0;
}

static int put(const struct qr_store *store, int file, const char *name, uint64_t epoch)
{
    uint8_t bytes[SLOT] = {0};
    struct slot slot;
    uint64_t number = 0;
    int rc = find(store, file, name, &number, &slot);
    if (!rc && !slot.sequence) {
        rc = store->os->sync_directory_of(store->os->context, store->path);
        rc = rc < 0 ? qr_fail_errno(-rc, "%s.consumers", qr_quotez(store->path)) : 0;
    }
    if (rc)
        return rc;
    unsigned half = !slot.half;
    uint8_t *h = bytes + half * HALF;
    size_t length = strlen(name);
    qr_store64(h, MAGIC);
    qr_store32(h + 8, 1);
    qr_store32(h + 12, (uint32_t)length);
    memcpy(h + 16, store->log->header.uuid, 16);
    qr_store64(h + 32, slot.sequence + 1);
    qr_store64(h + 40, epoch);
    qr_store64(h + 48, (uint64_t)store->os->now_ns(store->os->context));
    memcpy(h + NAME_AT, name, length);
    qr_store64(h + SUM_AT, qb_kernels()->hash64(h, SUM_AT, 0));
    return slot.sequence ? write_bytes(store, file, h, HALF, number * SLOT + half * HALF)
                         : write_bytes(store, file, bytes, SLOT, number * SLOT);
}

static int remove_slot(const struct qr_store *store, int file, const char *name)
{
    static const uint8_t zeros[SLOT];
    struct slot slot;
    uint64_t number = 0;
    int rc = file < 0 ? 0 : find(store, file, name, &number, &slot);
    if (rc == 0 && (file < 0 || !slot.sequence))
        return qr_fail(QALLOW_E_NO_INPUT, "%s: no consumer is called %s", qr_quotez(store->path),
                       qr_quotez(name));
    return rc ? rc : write_bytes(store, file, zeros, SLOT, number * SLOT);
}

static int check(struct qr_store *store, const char *name, uint64_t epoch)
{
    struct qr_store_info info;
    size_t length = strlen(name);
    if (length == 0 || length > QR_CONSUMER_NAME_MAX)
        return qr_fail(QALLOW_E_ARGUMENT, "the name of a consumer has 1 to %d bytes",
                       QR_CONSUMER_NAME_MAX);
    for (size_t i = 0; i < length; i++)
        if ((uint8_t)name[i] < ' ' || name[i] == 0x7f)
            return qr_fail(QALLOW_E_ARGUMENT, "%s is no name for a consumer", qr_quotez(name));
    qr_store_info(store, &info);
    return epoch && (epoch < info.first_epoch || epoch > info.last_epoch)
               ? qr_store_no_epoch(store, epoch)
               : 0;
}

/* Opens the file for writing, with its lock, and does one thing to it. epoch UINT64_MAX: remove. */
static int change(struct qr_store *store, const char *name, uint64_t epoch)
{
    const struct qr_os *os = store->os;
    int file, is_removal = epoch == UINT64_MAX, rc = check(store, name, is_removal ? 0 : epoch);
    if (!rc)
        rc = open_file(store, !is_removal, &file);
    if (rc)
        return rc;
    if (is_removal && file >= 0) { /* it is there: once more, to write */
        os->close(os->context, file);
        rc = open_file(store, 1, &file);
    }
    int locked = !rc && file >= 0 ? os->lock(os->context, file) : 0;
    if (locked < 0)
        rc = locked == -EAGAIN ? qr_fail(QALLOW_E_BUSY, "%s.consumers is being written; try again",
                                         qr_quotez(store->path))
                               : qr_fail_errno(-locked, "%s.consumers", qr_quotez(store->path));
    if (!rc)
        rc = is_removal ? remove_slot(store, file, name) : put(store, file, name, epoch);
    if (file >= 0)
        os->close(os->context, file);
    return rc;
}

int qr_consumer_acknowledge(struct qr_store *store, const char *name, uint64_t epoch)
{
    return change(store, name, epoch);
}

int qr_consumer_remove(struct qr_store *store, const char *name)
{
    return change(store, name, UINT64_MAX);
}

/* --- what they need --- */

struct need {
    uint64_t epoch;
    struct qr_consumer who;
};

static int note_need(void *context, const struct qr_consumer *consumer)
{
    struct need *need = context;
    if (consumer->epoch && consumer->epoch < need->epoch) {
        need->epoch = consumer->epoch;
        need->who = *consumer;
    }
    return 0;
}

int qr_consumers_need(struct qr_store *store, uint64_t *epoch, struct qr_consumer *who)
{
    struct need need = {.epoch = UINT64_MAX};
    int rc = qr_consumers_each(store, note_need, &need);
    *epoch = need.epoch;
    *who = need.who;
    return rc;
}
