/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a machine to its log. The first epoch creates all pages, in one order, so that a branch
 * has the same page ids as its origin and with them the same digests. A tick writes the blocks that
 * may have changed; the store finds out which bytes did.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runtime/bytes.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "runtime/store_internal.h"
#include "vm/session_internal.h"
#include "vm/state.h"

/* --- pages --- */

static int create_page(struct qallow_txn *txn, uint64_t parent, const char *name, uint32_t kind,
                       const void *bytes, uint64_t length, uint64_t *id)
{
    struct qallow_page_options options = QALLOW_PAGE_OPTIONS_INIT;
    int rc;

    options.kind = kind;
    options.mode = kind == QALLOW_DIRECTORY ? 0755 : 0644;
    options.parent = parent;
    options.name = name;
    rc = qallow_page_create(txn, &options, id);
    if (rc == 0 && length)
        rc = qallow_page_write(txn, *id, 0, bytes, length);
    return rc;
}

static int encode_state(struct qv_session *s, size_t *length)
{
    *length = qv_state_size(s->machine);
    if (*length > s->buffer_size) {
        uint8_t *grown = qr_realloc(s->buffer, *length * 2);
        if (!grown)
            return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the state");
        s->buffer = grown;
        s->buffer_size = *length * 2;
    }
    qv_state_encode(s->machine, s->buffer);
    return 0;
}

static int create_code(struct qv_session *s, struct qallow_txn *txn, const char *name)
{
    int function = qv_find_function(s->program, name);
    uint8_t *bytes = NULL;
    size_t length = 0;
    uint64_t id = 0;
    int rc =
        function < 0 ? 0 : qv_function_encode(&s->program->functions[function], &bytes, &length);

    if (rc == 0)
        rc = create_page(txn, s->code_id, name, QALLOW_FILE, bytes, length, &id);
    qr_free(bytes);
    return rc;
}

static int create_data(struct qv_session *s, struct qallow_txn *txn, int page)
{
    return create_page(txn, s->data_id, s->program->pages[page].name, QALLOW_FILE,
                       s->machine->pages[page].bytes, s->machine->pages[page].size,
                       &s->page_ids[page]);
}

static int create_one(struct qv_session *s, struct qallow_txn *txn, const char *path)
{
    size_t length = 0;

    if (strncmp(path, "code/", 5) == 0)
        return create_code(s, txn, path + 5);
    if (strncmp(path, "data/", 5) == 0)
        return create_data(s, txn, qv_find_page(s->program, path + 5));
    if (strcmp(path, "code") == 0)
        return create_page(txn, 0, path, QALLOW_DIRECTORY, NULL, 0, &s->code_id);
    if (strcmp(path, "data") == 0)
        return create_page(txn, 0, path, QALLOW_DIRECTORY, NULL, 0, &s->data_id);
    if (strcmp(path, "program.qvm") == 0)
        return create_page(txn, 0, path, QALLOW_FILE, s->text, s->text_length, &s->text_id);
    if (strcmp(path, "emitted") == 0)
        return create_page(txn, 0, path, QALLOW_FILE, s->machine->emits,
                           s->machine->emit_count * sizeof *s->machine->emits, &s->emitted_id);
    if (strcmp(path, "followed") == 0)
        return create_page(txn, 0, path, QALLOW_FILE, s->followed, sizeof s->followed,
                           &s->followed_id);
    int rc = encode_state(s, &length);
    return rc < 0 ? rc : create_page(txn, 0, path, QALLOW_FILE, s->buffer, length, &s->machine_id);
}

static int create_all(struct qv_session *s, struct qallow_txn *txn)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < s->layout_count; i++)
        rc = create_one(s, txn, s->layout[i].path);
    return rc;
}

static void remove_beside(const char *log, const char *ending)
{
    const struct qr_os *os = qr_os_posix();
    char *path = qr_path_with(log, ending);

    if (path)
        os->unlink(os->context, path);
    qr_free(path);
}

/* A log of ours that has got no epoch is taken away again, as long as nobody else can have it; then
 * the index that closing may write, unless somebody has made another log by now. The detail stays.
 */
static void remove_log(struct qv_session *s, const char *log)
{
    const struct qr_os *os = qr_os_posix();
    char detail[700];

    snprintf(detail, sizeof detail, "%s", qallow_error_detail());
    remove_beside(log, "");
    remove_beside(log, ".lock");
    qallow_close(s->store);
    s->store = NULL;
    int file = os->open(os->context, log, QR_OPEN_READ, 0);
    if (file >= 0)
        os->close(os->context, file);
    else
        remove_beside(log, "-index");
    (void)qr_fail(QALLOW_E_CANNOT_CREATE, "%s", detail);
}

static int exists(const char *log)
{
    return qr_fail(QALLOW_E_CANNOT_CREATE, "%s exists; --resume goes on with it", qr_quotez(log));
}

int qv_record_new(struct qv_session *s, const char *log, const struct qallow_options *options,
                  const char *label)
{
    struct qallow_options store = *options;
    struct qallow_txn *txn = NULL;
    const struct qr_os *os = qr_os_posix();
    int file = os->open(os->context, log, QR_OPEN_READ, 0);

    if (file == -EISDIR || file == -EINVAL)
        return qr_fail(QALLOW_E_CANNOT_CREATE, "%s is a %s: a new log needs another name",
                       qr_quotez(log), file == -EISDIR ? "directory" : "special file");
    if (file >= 0) {
        os->close(os->context, file);
        return exists(log);
    }
    store.writable = store.create = 1;
    int rc = qallow_open(log, &store, &s->store);
    if (rc == 0 && qallow_view_epoch(qallow_newest(s->store)) != 0) { /* made in this moment */
        qallow_close(s->store);
        s->store = NULL;
        return exists(log);
    }
    if (rc == 0)
        rc = qallow_begin(s->store, &txn);
    if (rc == 0) {
        rc = create_all(s, txn);
        qv_clear_dirty(s->machine);
        if (rc == 0)
            rc = qallow_commit(txn, &s->epoch);
        else
            qallow_abort(txn);
    }
    if (rc < 0 && s->store)
        remove_log(s, log);
    return rc < 0 || !label ? rc : qallow_label(s->store, label, s->epoch);
}

/* --- ticks --- */

/* Blocks next to each other are written together. */
static int write_blocks(struct qallow_txn *txn, uint64_t id, const struct qv_memory *page)
{
    uint64_t blocks = (page->size + QV_BLOCK - 1) / QV_BLOCK;

    for (uint64_t from = 0; from < blocks;) {
        const uint8_t *dirty = memchr(page->dirty + from, 1, blocks - from);
        if (!dirty)
            break;
        from = (uint64_t)(dirty - page->dirty);
        uint64_t to = from;
        while (to < blocks && page->dirty[to])
            to++;
        uint64_t end = to * QV_BLOCK < page->size ? to * QV_BLOCK : page->size;
        int rc = qallow_page_write(txn, id, from * QV_BLOCK, page->bytes + from * QV_BLOCK,
                                   end - from * QV_BLOCK);
        if (rc < 0)
            return rc;
        from = to;
    }
    return 0;
}

static int write_page(struct qv_session *s, struct qallow_txn *txn, size_t page)
{
    const struct qv_memory *memory = &s->machine->pages[page];
    int rc = 0;

    if (memory->dirty[0] && !qv_page_is_fixed(&s->program->pages[page]))
        rc = qallow_page_resize(txn, s->page_ids[page], memory->size);
    return rc < 0 ? rc : write_blocks(txn, s->page_ids[page], memory);
}

static int replace(struct qallow_txn *txn, uint64_t id, const void *bytes, uint64_t length)
{
    int rc = qallow_page_resize(txn, id, length);
    return rc < 0 || length == 0 ? rc : qallow_page_write(txn, id, 0, bytes, length);
}

static int write_all(struct qv_session *s, struct qallow_txn *txn)
{
    struct qv_machine *m = s->machine;
    size_t length = 0;
    int rc = encode_state(s, &length);

    if (rc == 0 && s->text_is_new)
        rc = replace(txn, s->text_id, s->text, s->text_length);
    s->text_is_new = 0;
    if (rc == 0 && s->followed_is_new)
        rc = qallow_page_write(txn, s->followed_id, 0, s->followed, sizeof s->followed);
    s->followed_is_new = 0;
    if (rc == 0)
        rc = replace(txn, s->machine_id, s->buffer, length);
    if (rc == 0)
        rc = replace(txn, s->emitted_id, m->emits, m->emit_count * sizeof *m->emits);
    for (size_t i = qv_next_touched(m, 0); rc == 0 && i < s->program->page_count;
         i = qv_next_touched(m, i + 1)) {
        if (!s->program->pages[i].is_derived || !s->nodes_are_logged)
            rc = write_page(s, txn, i);
        qv_clean(m, i);
    }
    return rc;
}

/* --- patches --- */

/* A page that is there keeps its id. */
static int put_code(struct qv_session *s, struct qallow_txn *txn, const struct qv_function *f)
{
    struct qallow_page page = QALLOW_PAGE_INIT;
    char path[QV_MAX_FUNCTION_NAME + 8];
    uint8_t *bytes = NULL;
    size_t length = 0;

    snprintf(path, sizeof path, "code/%s", f->name);
    int rc = qallow_page_lookup(qallow_newest(s->store), path, &page);
    if (rc == QALLOW_E_PAGE_NOT_FOUND)
        return create_code(s, txn, f->name);
    if (rc == 0)
        rc = qv_function_encode(f, &bytes, &length);
    if (rc == 0)
        rc = replace(txn, page.id, bytes, length);
    qr_free(bytes);
    return rc;
}

/* What a patch has removed stays as an empty page: no id is handed out twice, and a branch shall
 * have those of its origin. */
static int empty_code(struct qv_session *s, struct qallow_txn *txn)
{
    struct qallow_page page = QALLOW_PAGE_INIT;
    struct qallow_view *view = qallow_newest(s->store);
    char path[QV_MAX_FUNCTION_NAME + 8];
    int rc = 0;

    while (rc == 0 && qallow_page_next(view, page.id, &page) == 0) {
        if (page.parent != s->code_id || page.bytes == 0)
            continue;
        rc = qallow_page_path(view, page.id, path, sizeof path, NULL);
        if (rc == 0 && qv_find_function(s->program, path + strlen("code/")) < 0)
            rc = qallow_page_resize(txn, page.id, 0);
    }
    return rc;
}

static int write_patch(struct qv_session *s, struct qallow_txn *txn)
{
    int rc = replace(txn, s->text_id, s->text, s->text_length);

    for (size_t i = 0; rc == 0 && i < qv_current_count(s->program); i++)
        rc = put_code(s, txn, &s->program->functions[i]);
    if (rc == 0)
        rc = empty_code(s, txn);
    for (size_t i = 0; rc == 0 && i < s->program->page_count; i++)
        if (s->page_ids[i] == 0)
            rc = create_data(s, txn, (int)i);
    return rc < 0 ? rc : write_all(s, txn);
}

/* --- epochs --- */

static int record(struct qv_session *s, int (*write)(struct qv_session *, struct qallow_txn *),
                  uint64_t *epoch)
{
    struct qallow_txn *txn = NULL;
    int rc = qallow_begin(s->store, &txn);

    if (rc < 0)
        return rc;
    rc = write(s, txn);
    if (rc < 0) {
        qallow_abort(txn);
        return rc;
    }
    return qallow_commit(txn, epoch);
}

int qv_record_tick(struct qv_session *s, uint64_t *epoch) { return record(s, write_all, epoch); }

int qv_record_patch(struct qv_session *s, uint64_t *epoch) { return record(s, write_patch, epoch); }
