/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a page is as it is: the epoch in which it was computed last is run again, in memory, from the
 * one before it, and the graph is asked then; for pages that are not derived, the instructions that
 * write are noted on the way. Whether a page was computed and came out as it was is nowhere in the
 * log, so the epoch that is asked about is tried first, then the one that changed the page.
 */
#include <stdio.h>

#include "qallow/graph.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "vm/session_internal.h"

static int find_version(struct qallow_store *log, uint64_t epoch, const char *name,
                        uint64_t *version)
{
    struct qallow_page page = QALLOW_PAGE_INIT;
    struct qallow_view *view = NULL;
    char path[QV_MAX_NAME + 8];
    int rc = qallow_view_at(log, epoch, &view);

    if (rc < 0)
        return rc;
    snprintf(path, sizeof path, "data/%.*s", QV_MAX_NAME, name);
    rc = qallow_page_lookup(view, path, &page);
    if (rc == QALLOW_E_PAGE_NOT_FOUND)
        rc = qr_fail(QALLOW_E_ARGUMENT, "the program has no page %s", qr_quotez(name));
    *version = page.version;
    qallow_view_destroy(view);
    return rc;
}

static void describe(const struct qv_machine *m, struct qv_writer *writer)
{
    uint32_t function, word;

    qv_locate(m, writer->pc, &function, &word);
    const struct qv_function *f = &m->program->functions[function];
    snprintf(writer->function, sizeof writer->function, "%s", f->name);
    writer->line = f->lines ? f->lines[word] : 0;
    qv_disassemble_one(m->program, f, word, writer->instruction, sizeof writer->instruction);
}

/* Before each instruction of the machine. An old definition may be gone when the tick is over; the
 * others are described then. */
static int note_writer(void *context, struct qv_machine *m, uint32_t what, uint32_t which)
{
    struct qv_session *s = context;
    unsigned page = m == s->machine ? qv_written_page(m->pc) : QV_NO_PAGE;
    size_t old = qv_current_count(m->program);

    (void)what, (void)which;
    if (page == QV_NO_PAGE)
        return 0;
    struct qv_writer *writer = &s->writers[page];
    int is_old = old < m->program->function_count && m->pc >= m->entries[old].code;
    writer->writes++;
    if (writer->pc != m->pc)
        writer->function[0] = '\0';
    writer->pc = m->pc;
    if (is_old && !writer->function[0])
        describe(m, writer);
    return 0;
}

static int watch_writers(struct qv_session *s)
{
    s->writers = qr_calloc(s->program->page_count + 1, sizeof *s->writers);
    if (!s->writers)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for who writes to pages");
    s->machine->watch =
        (struct qv_watch){.what = QALLOW_VM_ON_INSTRUCTION, .tell = note_writer, .context = s};
    return 0;
}

struct qv_writer qv_session_writer(const struct qv_session *s, int page)
{
    struct qv_writer writer = {.writes = 0};

    if (!s->writers || s->was_patched || !s->writers[page].writes)
        return writer;
    writer = s->writers[page];
    if (!writer.function[0])
        describe(s->machine, &writer);
    return writer;
}

/* The machine of an epoch, which it has got to from the one before, if that is there. */
static int arrive(struct qallow_store *log, const char *path, uint64_t first, uint64_t epoch,
                  uint64_t max_memory, struct qv_session **session)
{
    struct qv_session_options options = {
        .threads = 1, .fuel = QV_MAX_FUEL, .has_no_log = 1, .max_memory = max_memory};
    int rc = qv_load(log, path, epoch > first ? epoch - 1 : first, &options, session);

    if (rc == 0 && epoch > first)
        rc = watch_writers(*session);
    if (rc == 0 && epoch > first)
        rc = qv_step_again(*session, log, epoch);
    if (rc == 0)
        (*session)->epoch = epoch;
    return rc;
}

static int was_computed(struct qv_session *s, int page, uint64_t epoch)
{
    struct qallow_reason reason = QALLOW_REASON_INIT;
    size_t count = 0;
    int rc = qallow_graph_explain(qv_nodes_graph(s->nodes), (uint64_t)page + 1, &reason, 1, &count);

    return rc < 0 ? rc : reason.epoch == epoch;
}

static int explain(struct qallow_store *log, const char *path, uint64_t epoch, const char *name,
                   uint64_t max_memory, struct qv_session **session)
{
    struct qallow_stats stats = QALLOW_STATS_INIT;
    uint64_t version = 0;
    int rc = qallow_stats_get(log, &stats);

    epoch = epoch ? epoch : stats.last_epoch;
    if (rc == 0)
        rc = find_version(log, epoch, name, &version);
    if (rc == 0)
        rc = arrive(log, path, stats.first_epoch, epoch, max_memory, session);
    if (rc < 0)
        return rc;
    int page = qv_find_page((*session)->program, name);
    if (page < 0)
        return qr_fail(QALLOW_E_ARGUMENT, "the program has no page %s", qr_quotez(name));
    rc = (*session)->program->pages[page].is_derived ? was_computed(*session, page, epoch)
                                                     : version == epoch;
    if (rc != 0)
        return rc < 0 ? rc : 0;
    qv_session_close(*session);
    *session = NULL;
    version = version < stats.first_epoch ? stats.first_epoch : version;
    return arrive(log, path, stats.first_epoch, version, max_memory, session);
}

int qv_session_explain(const char *path, uint64_t epoch, const char *name, uint64_t max_memory,
                       struct qv_session **session)
{
    struct qallow_store *log = NULL;
    int rc = qallow_open(path, NULL, &log);

    *session = NULL;
    if (rc < 0)
        return rc;
    rc = explain(log, path, epoch, name, max_memory, session);
    qallow_close(log);
    if (rc < 0) {
        qv_session_close(*session);
        *session = NULL;
    }
    return rc;
}

struct qv_nodes *qv_session_nodes(struct qv_session *session) { return session->nodes; }
