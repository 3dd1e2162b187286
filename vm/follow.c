/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inputs that change while a machine runs: fed from the pages of another log, epoch by epoch, or
 * from a stream of changes.
 *
 * Every epoch of the followed log that changes one of these pages is an epoch of inputs here, in
 * the same order, whenever the other log was written; so a run that follows is as reproducible as
 * one that does not. How far it has come is in the page `followed`: the log's identity (16 bytes)
 * and the epoch (8).
 *
 * A stream has frames of [type u8][0, u64][length u32][data], as events have:
 *
 *     'w'  name's length (u8), name, offset (u64), bytes: what the input holds from there on
 *     's'  name's length (u8), name, size (u64): cut off there, or zeros added
 *     't'  nothing: so much for this tick
 */
#include "vm/follow.h"

#include <string.h>

#include "runtime/bytes.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "telemetry/telemetry.h"
#include "vm/session_internal.h"

struct qv_follow {
    struct qv_session *session;
    struct qallow_store *log;
    uint8_t uuid[16];
    char (*paths)[QV_MAX_FOLLOWED + 1]; /* of each page of the program that is an input */
    uint64_t *ids;                      /* which pages these were; 0: none */
    uint64_t next;                      /* epoch */
    uint8_t *bytes;
    size_t capacity;
};

/* --- what an input holds --- */

static struct qv_memory *memory_of(struct qv_session *s, int page)
{
    return &s->machine->pages[page];
}

static void resize(struct qv_session *s, int page, uint64_t size)
{
    struct qv_memory *memory = memory_of(s, page);
    uint64_t old = memory->size;

    if (size == old)
        return;
    if (size > old) {
        memset(memory->bytes + old, 0, size - old);
        qv_touch(s->machine, (size_t)page, old, size);
    }
    qv_touch(s->machine, (size_t)page, 0, 1); /* so that its size is looked at */
    memory->size = size;
    memory->count = size >> qb_type_shift(s->program->pages[page].type);
}

/* Only blocks that differ are taken to have changed. */
static void put(struct qv_session *s, int page, uint64_t offset, const uint8_t *bytes,
                uint64_t length)
{
    struct qv_memory *memory = memory_of(s, page);

    for (uint64_t at = 0; at < length;) {
        uint64_t n = QV_BLOCK - (offset + at) % QV_BLOCK;
        n = n < length - at ? n : length - at;
        if (memcmp(memory->bytes + offset + at, bytes + at, n) != 0) {
            memcpy(memory->bytes + offset + at, bytes + at, n);
            qv_touch(s->machine, (size_t)page, offset + at, offset + at + n);
        }
        at += n;
    }
}

static int commit(struct qv_session *s)
{
    qt_add(QT_VM_INPUTS, 1);
    return qv_session_commit(s);
}

/* --- another log --- */

static int reserve(struct qv_follow *f, uint64_t size)
{
    if (size <= f->capacity)
        return 0;
    uint8_t *grown = qr_realloc(f->bytes, size);
    if (!grown)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for an input of %llu bytes",
                       (unsigned long long)size);
    f->bytes = grown;
    f->capacity = size;
    return 0;
}

static int take(struct qv_follow *f, struct qallow_view *view, int page,
                const struct qallow_page *from)
{
    const struct qv_page *declared = &f->session->program->pages[page];
    unsigned shift = qb_type_shift(declared->type);
    uint64_t size = from->bytes >> shift
                                       << shift; /* an element that is being written comes later */

    if (size > qv_page_bytes(declared))
        return qr_fail(QALLOW_E_LIMIT, "%s has %llu bytes in epoch %llu; the input %s takes %llu",
                       qr_quotez(f->paths[page]), (unsigned long long)from->bytes,
                       (unsigned long long)qallow_view_epoch(view), declared->name,
                       (unsigned long long)qv_page_bytes(declared));
    int rc = reserve(f, size);
    if (rc == 0 && size)
        rc = qallow_page_read(view, from->id, 0, f->bytes, size);
    if (rc < 0)
        return rc;
    resize(f->session, page, size);
    put(f->session, page, 0, f->bytes, size);
    return 0;
}

static int is_changed(const struct qv_session *s, int page)
{
    return s->machine->touched[page] != 0;
}

/* 1: an input has changed. A page that is not there is empty. */
static int take_epoch(struct qv_follow *f, uint64_t epoch)
{
    const struct qv_program *program = f->session->program;
    struct qallow_view *view = NULL;
    int any = 0, rc = qallow_view_at(f->log, epoch, &view);

    for (int i = 0; rc == 0 && i < (int)program->page_count; i++) {
        struct qallow_page page = QALLOW_PAGE_INIT;
        if (!program->pages[i].is_input)
            continue;
        rc = qallow_page_lookup(view, f->paths[i], &page);
        if (rc == QALLOW_E_PAGE_NOT_FOUND) {
            resize(f->session, i, 0);
            f->ids[i] = 0;
            rc = 0;
        } else if (rc == 0 && (page.version == epoch || page.id != f->ids[i])) {
            rc = take(f, view, i, &page);
            f->ids[i] = page.id;
        }
        any |= rc == 0 && is_changed(f->session, i);
    }
    qallow_view_destroy(view);
    return rc < 0 ? rc : any;
}

static int name_pages(struct qv_follow *f, const struct qv_input *inputs, size_t count)
{
    const struct qv_program *program = f->session->program;

    f->paths = qr_calloc(program->page_count + 1, sizeof *f->paths);
    f->ids = qr_calloc(program->page_count + 1, sizeof *f->ids);
    if (!f->paths || !f->ids)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for what is followed");
    for (size_t i = 0; i < program->page_count; i++)
        memcpy(f->paths[i], program->pages[i].name, sizeof program->pages[i].name);
    for (size_t i = 0; i < count; i++) {
        int page = qv_find_page(program, inputs[i].name);
        if (page < 0 || !program->pages[page].is_input)
            return qr_fail(QALLOW_E_ARGUMENT, "the program has no input %s",
                           qr_quotez(inputs[i].name));
        if (strlen(inputs[i].path) > QV_MAX_FOLLOWED)
            return qr_fail(QALLOW_E_LIMIT, "%s: a path of at most %d bytes",
                           qr_quotez(inputs[i].path), QV_MAX_FOLLOWED);
        memcpy(f->paths[page], inputs[i].path, strlen(inputs[i].path) + 1);
    }
    return 0;
}

static int find_start(struct qv_follow *f, const char *log)
{
    struct qallow_stats stats = QALLOW_STATS_INIT;
    int rc = qallow_stats_get(f->log, &stats);

    if (rc < 0)
        return rc;
    memcpy(f->uuid, stats.uuid, sizeof f->uuid);
    uint64_t done = qr_load64(f->session->followed + 16);
    if (done != 0 && memcmp(f->session->followed, f->uuid, sizeof f->uuid) != 0)
        return qr_fail(QALLOW_E_ARGUMENT, "%s is another log than the one that was followed",
                       qr_quotez(log));
    f->next = done ? done + 1 : stats.first_epoch ? stats.first_epoch : 1;
    return 0;
}

int qv_follow_open(struct qv_session *session, const char *log, const struct qv_input *inputs,
                   size_t count, struct qv_follow **follow)
{
    struct qv_follow *f;

    *follow = NULL;
    if (!session->follows)
        return qr_fail(QALLOW_E_ARGUMENT,
                       "this log was not begun with --follow: it has no place to say how far");
    f = qr_calloc(1, sizeof *f);
    if (!f)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory to follow a log");
    f->session = session;
    int rc = name_pages(f, inputs, count);
    if (rc == 0)
        rc = qallow_open(log, NULL, &f->log);
    if (rc == 0)
        rc = find_start(f, log);
    if (rc < 0) {
        qv_follow_close(f);
        return rc;
    }
    *follow = f;
    return 0;
}

int qv_follow_next(struct qv_follow *f)
{
    uint64_t newest = 0;
    int rc = qallow_refresh(f->log, &newest);

    while (rc == 0 && f->next <= newest) {
        uint64_t epoch = f->next++;
        rc = take_epoch(f, epoch);
        if (rc <= 0)
            continue;
        memcpy(f->session->followed, f->uuid, sizeof f->uuid);
        qr_store64(f->session->followed + 16, epoch);
        f->session->followed_is_new = 1;
        rc = commit(f->session);
        return rc < 0 ? rc : 1;
    }
    return rc;
}

void qv_follow_close(struct qv_follow *f)
{
    if (!f)
        return;
    qallow_close(f->log);
    qr_free(f->paths);
    qr_free(f->ids);
    qr_free(f->bytes);
    qr_free(f);
}

/* --- a stream --- */

/* The input that a frame names, and what stands behind the name. */
static int named(const struct qv_session *s, const uint8_t *data, uint32_t length,
                 const uint8_t **rest, uint32_t *left)
{
    char name[QV_MAX_NAME + 1];
    uint32_t n = length ? data[0] : 0;

    if (n == 0 || n > QV_MAX_NAME || length < 1 + n + 8)
        return qr_fail(QALLOW_E_SERIALIZATION, "a frame of %u bytes: no name, or nothing behind it",
                       length);
    memcpy(name, data + 1, n);
    name[n] = '\0';
    *rest = data + 1 + n;
    *left = length - 1 - n;
    int page = qv_find_page(s->program, name);
    if (page < 0 || !s->program->pages[page].is_input)
        return qr_fail(QALLOW_E_ARGUMENT, "the program has no input %s", qr_quotez(name));
    return page;
}

int qv_session_take_frame(struct qv_session *s, uint8_t type, const uint8_t *data, uint32_t length)
{
    const uint8_t *rest = NULL;
    uint32_t left = 0;

    if (type == 't' && length == 0) {
        int rc = commit(s);
        return rc < 0 ? rc : 1;
    }
    if (type != 'w' && type != 's')
        return qr_fail(QALLOW_E_SERIALIZATION, "a frame of type %u with %u bytes", type, length);
    int page = named(s, data, length, &rest, &left);
    if (page < 0)
        return page;
    const struct qv_page *declared = &s->program->pages[page];
    uint64_t at = qr_load64(rest), most = qv_page_bytes(declared);
    uint64_t n = type == 'w' ? left - 8 : 0;
    unsigned shift = qb_type_shift(declared->type);
    if (at > most || n > most - at)
        return qr_fail(QALLOW_E_LIMIT, "bytes %llu+%llu: the input %s takes %llu",
                       (unsigned long long)at, (unsigned long long)n, declared->name,
                       (unsigned long long)most);
    if ((at >> shift << shift) != at || (n >> shift << shift) != n || (type == 's' && left != 8))
        return qr_fail(QALLOW_E_SERIALIZATION, "bytes %llu+%llu are no whole elements of %s",
                       (unsigned long long)at, (unsigned long long)n, declared->name);
    if (type == 's' || at + n > memory_of(s, page)->size)
        resize(s, page, at + n);
    put(s, page, at, rest + 8, n);
    return 0;
}

uint32_t qv_session_frame_limit(const struct qv_session *s)
{
    uint64_t most = 0;

    for (size_t i = 0; i < s->program->page_count; i++)
        if (s->program->pages[i].is_input && qv_page_bytes(&s->program->pages[i]) > most)
            most = qv_page_bytes(&s->program->pages[i]);
    most += 1 + QV_MAX_NAME + 8;
    return most < UINT32_MAX ? (uint32_t)most : UINT32_MAX;
}
