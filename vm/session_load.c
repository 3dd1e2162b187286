/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a machine back from an epoch of a log, which may be anybody's: sizes are compared with
 * what the program allows before anything is allocated.
 */
#include <stdio.h>
#include <string.h>

#include "runtime/api.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "vm/session_internal.h"
#include "vm/state.h"

static int get_page(struct qallow_view *view, const char *path, struct qallow_page *page)
{
    *page = (struct qallow_page)QALLOW_PAGE_INIT;
    int rc = qallow_page_lookup(view, path, page);
    if (rc == QALLOW_E_PAGE_NOT_FOUND)
        return qr_fail(QALLOW_E_SERIALIZATION, "epoch %llu has no page %s: it is not of a machine",
                       (unsigned long long)qallow_view_epoch(view), path);
    return rc;
}

int qv_load_page(struct qallow_view *view, const char *path, uint64_t limit, uint8_t **bytes,
                 uint64_t *length)
{
    struct qallow_page page;
    int rc = get_page(view, path, &page);

    *bytes = NULL;
    if (rc < 0)
        return rc;
    if (page.bytes > limit)
        return qr_fail(QALLOW_E_SERIALIZATION, "page %s has %llu bytes: at most %llu", path,
                       (unsigned long long)page.bytes, (unsigned long long)limit);
    *length = page.bytes;
    *bytes = qr_malloc(page.bytes + 1);
    if (!*bytes)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for page %s", path);
    rc = qallow_page_read(view, page.id, 0, *bytes, page.bytes);
    if (rc < 0) {
        qr_free(*bytes);
        *bytes = NULL;
    }
    return rc;
}

static int check_code(struct qv_session *s, struct qallow_view *view)
{
    for (size_t i = 0; i < qv_current_count(s->program); i++) {
        char path[QV_MAX_FUNCTION_NAME + 8];
        uint8_t *expected = NULL, *found = NULL;
        size_t length = 0;
        uint64_t found_length = 0;
        snprintf(path, sizeof path, "code/%s", s->program->functions[i].name);
        int rc = qv_function_encode(&s->program->functions[i], &expected, &length);
        if (rc == 0)
            rc = qv_load_page(view, path, length, &found, &found_length);
        if (rc == 0 && (found_length != length || memcmp(found, expected, length) != 0))
            rc = qr_fail(QALLOW_E_SERIALIZATION, "page %s is not what program.qvm assembles to",
                         path);
        qr_free(expected);
        qr_free(found);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int qv_load_data(struct qv_session *s, struct qallow_view *view, size_t i)
{
    const struct qv_page *declared = &s->program->pages[i];
    struct qallow_page page;
    char path[QV_MAX_FUNCTION_NAME + 8];

    snprintf(path, sizeof path, "data/%s", declared->name);
    int rc = get_page(view, path, &page);
    if (rc < 0)
        return rc;
    uint64_t most = qv_page_bytes(declared);
    unsigned shift = qb_type_shift(declared->type);
    if (page.bytes > most || (qv_page_is_fixed(declared) && page.bytes != most) ||
        page.bytes >> shift << shift != page.bytes)
        return qr_fail(QALLOW_E_SERIALIZATION, "page %s has %llu bytes; the program says %llu",
                       path, (unsigned long long)page.bytes, (unsigned long long)most);
    s->machine->pages[i].size = page.bytes;
    s->machine->pages[i].count = page.bytes >> shift;
    return qallow_page_read(view, page.id, 0, s->machine->pages[i].bytes, page.bytes);
}

int qv_load_followed(struct qv_session *s, struct qallow_view *view)
{
    struct qallow_page page = QALLOW_PAGE_INIT;
    int rc = qallow_page_lookup(view, "followed", &page);

    s->follows = rc == 0;
    if (rc == QALLOW_E_PAGE_NOT_FOUND)
        return 0;
    if (rc == 0 && page.bytes != sizeof s->followed)
        rc = qr_fail(QALLOW_E_SERIALIZATION, "page followed has %llu bytes",
                     (unsigned long long)page.bytes);
    s->followed_id = page.id;
    return rc < 0 ? rc : qallow_page_read(view, page.id, 0, s->followed, sizeof s->followed);
}

static int load_emitted(struct qv_session *s, struct qallow_view *view)
{
    uint8_t *bytes = NULL;
    uint64_t length = 0;
    int rc =
        qv_load_page(view, "emitted", QV_MAX_EMITS * sizeof *s->machine->emits, &bytes, &length);

    if (rc < 0)
        return rc;
    if (length % sizeof *s->machine->emits != 0)
        rc = qr_fail(QALLOW_E_SERIALIZATION, "page emitted has %llu bytes",
                     (unsigned long long)length);
    s->machine->emit_count = length / sizeof *s->machine->emits;
    memcpy(s->machine->emits, bytes, s->machine->emit_count * sizeof *s->machine->emits);
    for (size_t i = 0; rc == 0 && i < s->machine->emit_count; i++)
        if (s->machine->emits[i].name >= s->program->name_count ||
            s->machine->emits[i].kind > QV_EMIT_F64)
            rc = qr_fail(QALLOW_E_SERIALIZATION, "page emitted: value %zu has no name", i);
    qr_free(bytes);
    return rc;
}

static int load_state(struct qv_session *s, struct qallow_view *view)
{
    uint8_t *bytes = NULL;
    uint64_t length = 0;
    int rc = qv_load_page(view, "machine", qv_state_limit(s->program), &bytes, &length);

    if (rc == 0)
        rc = qv_state_decode(s->machine, bytes, length);
    qr_free(bytes);
    return rc;
}

/* The digest of the epoch, from all of its bytes. */
static int check_digest(struct qallow_store *store, uint64_t epoch, int threads)
{
    struct qr_state *state = NULL;
    struct qr_epoch recorded;
    struct qb_u128 digest;
    uint64_t bad = 0;
    int rc = qr_store_state_at(store->store, epoch, &state);

    if (rc < 0)
        return rc;
    rc = qr_state_digest_compute(store->store, state, threads, &digest, &bad);
    qr_state_destroy(state);
    if (rc == 0)
        rc = qr_store_epoch(store->store, epoch, &recorded);
    if (rc == 0 && !qb_u128_equal(digest, recorded.digest))
        rc = qr_fail(QALLOW_E_DAMAGED, "epoch %llu does not have the digest that was recorded",
                     (unsigned long long)epoch);
    return rc;
}

int qv_load_all(struct qv_session *s, struct qallow_view *view)
{
    int rc = check_code(s, view);

    if (rc == 0)
        rc = load_state(s, view);
    if (rc == 0)
        rc = load_emitted(s, view);
    if (rc == 0)
        rc = qv_load_followed(s, view);
    for (size_t i = 0; rc == 0 && i < s->program->page_count; i++)
        rc = qv_load_data(s, view, i);
    return rc < 0 ? rc : qv_nodes_verify(s->nodes, qallow_view_epoch(view));
}

int qv_load(struct qallow_store *from, const char *log, uint64_t epoch,
            const struct qv_session_options *options, struct qv_session **session)
{
    struct qallow_view *view = NULL;
    struct qv_session *s = NULL;
    uint8_t *text = NULL;
    uint64_t length = 0;
    int rc = qallow_view_at(from, epoch, &view);

    if (rc < 0)
        return rc;
    rc = qv_load_page(view, "program.qvm", QV_MAX_TEXT, &text, &length);
    if (rc == 0)
        rc = check_digest(from, epoch, options->threads > 0 ? options->threads : 1);
    if (rc == 0) {
        rc = qv_session_new((const char *)text, length, log, options, &s);
        if (rc == QALLOW_E_ARGUMENT)
            rc = QALLOW_E_SERIALIZATION; /* the text is of a log: the detail stays */
    }
    if (rc == 0)
        rc = qv_load_all(s, view);
    if (rc == 0)
        rc = qv_layout_of(s, view);
    qr_free(text);
    qallow_view_destroy(view);
    if (rc < 0) {
        qv_session_close(s);
        return rc;
    }
    s->epoch = s->waves = epoch;
    *session = s;
    return 0;
}

/* --- the layout --- */

static int add_to_layout(struct qv_session *s, const char *directory, const char *name)
{
    if (s->layout_count % 256 == 0) {
        struct qv_layout *grown =
            qr_realloc(s->layout, (s->layout_count + 256) * sizeof *s->layout);
        if (!grown)
            return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the pages of the log");
        s->layout = grown;
    }
    struct qv_layout *at = &s->layout[s->layout_count++];
    snprintf(at->path, sizeof at->path, "%s%s", directory, name);
    return 0;
}

int qv_layout_new(struct qv_session *s)
{
    int rc = add_to_layout(s, "", "program.qvm");

    if (rc == 0)
        rc = add_to_layout(s, "", "code");
    for (size_t i = 0; rc == 0 && i < qv_current_count(s->program); i++)
        rc = add_to_layout(s, "code/", s->program->functions[i].name);
    if (rc == 0)
        rc = add_to_layout(s, "", "machine");
    if (rc == 0)
        rc = add_to_layout(s, "", "emitted");
    if (rc == 0 && s->follows)
        rc = add_to_layout(s, "", "followed");
    if (rc == 0)
        rc = add_to_layout(s, "", "data");
    for (size_t i = 0; rc == 0 && i < s->program->page_count; i++)
        rc = add_to_layout(s, "data/", s->program->pages[i].name);
    return rc;
}

/* 1 if a page is one of a machine's, and not somebody else's. */
static int is_ours(const struct qv_session *s, const struct qallow_page *page, const char *path)
{
    static const char *const names[] = {"program.qvm", "code",     "machine",
                                        "emitted",     "followed", "data"};

    if (strncmp(path, "code/", 5) == 0)
        return qv_find_function(s->program, path + 5) >= 0 || page->bytes == 0;
    if (strncmp(path, "data/", 5) == 0)
        return qv_find_page(s->program, path + 5) >= 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(path, names[i]) == 0)
            return 1;
    return 0;
}

int qv_layout_of(struct qv_session *s, struct qallow_view *view)
{
    struct qallow_page page = QALLOW_PAGE_INIT;
    char path[QV_MAX_FUNCTION_NAME + 8];
    int rc = 0;

    while (rc == 0 && qallow_page_next(view, page.id, &page) == 0) {
        rc = qallow_page_path(view, page.id, path, sizeof path, NULL);
        if (rc == 0 && is_ours(s, &page, path))
            rc = add_to_layout(s, "", path);
        if (rc == QALLOW_E_LIMIT)
            rc = 0; /* no path of ours is so long */
    }
    return rc;
}

int qv_find_pages(struct qv_session *s, struct qallow_view *view)
{
    struct qallow_page page;
    const struct {
        const char *path;
        uint64_t *id;
    } pages[] = {{"program.qvm", &s->text_id},
                 {"machine", &s->machine_id},
                 {"emitted", &s->emitted_id},
                 {"code", &s->code_id},
                 {"data", &s->data_id}};
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < sizeof pages / sizeof *pages; i++) {
        rc = get_page(view, pages[i].path, &page);
        *pages[i].id = page.id;
    }
    for (size_t i = 0; rc == 0 && i < s->program->page_count; i++) {
        char path[QV_MAX_FUNCTION_NAME + 8];
        snprintf(path, sizeof path, "data/%s", s->program->pages[i].name);
        rc = get_page(view, path, &page);
        s->page_ids[i] = page.id;
    }
    return rc;
}

int qv_is_session(const char *log, uint64_t epoch)
{
    struct qallow_store *store = NULL;
    struct qallow_view *view = NULL;
    struct qallow_page page;
    int rc = qallow_open(log, NULL, &store);

    if (rc == 0)
        rc = qallow_view_at(store, epoch, &view);
    if (rc == 0)
        rc = get_page(view, "program.qvm", &page);
    if (rc == 0)
        rc = get_page(view, "machine", &page);
    qallow_view_destroy(view);
    qallow_close(store);
    return rc == QALLOW_E_SERIALIZATION ? 0 : rc < 0 ? rc : 1;
}
