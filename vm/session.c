/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making and resuming sessions, and their ticks. What a log holds stands in session.h. Reading a
 * machine back believes nothing: every byte is checked against the log's checksums and the epoch's
 * digest, the text is assembled and verified anew and must give the code pages, the state is
 * checked against the code.
 */
#include "vm/session_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runtime/api.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "telemetry/telemetry.h"

/* --- files --- */

/* To the end, whatever size it says it has: files of /proc say 0, others grow. */
static int read_open(const struct qr_os *os, int file, const char *path, uint64_t limit,
                     uint8_t **bytes, uint64_t *length)
{
    int64_t size = os->size(os->context, file), got = size;
    uint64_t capacity = size > 0 ? (uint64_t)size + 1 : QV_BLOCK;

    for (*length = 0; got >= 0; capacity *= 2) {
        if (*length > limit || (uint64_t)size > limit)
            return qr_fail(
                QALLOW_E_LIMIT, "%s has %llu bytes or more: at most %llu", qr_quotez(path),
                (unsigned long long)((uint64_t)size > *length ? (uint64_t)size : *length),
                (unsigned long long)limit);
        uint8_t *grown = qr_realloc(*bytes, capacity);
        if (!grown)
            return qr_fail(QALLOW_E_NO_MEMORY, "no memory for %s", qr_quotez(path));
        *bytes = grown;
        got = os->pread(os->context, file, *bytes + *length, capacity - *length, *length);
        *length += got > 0 ? (uint64_t)got : 0;
        if (got >= 0 && *length < capacity && *length <= limit)
            return 0;
    }
    return qr_fail_errno((int)-got, "%s", qr_quotez(path));
}

int qv_read_file(const char *path, uint64_t limit, uint8_t **bytes, uint64_t *length)
{
    const struct qr_os *os = qr_os_posix();
    int file = os->open(os->context, path, QR_OPEN_READ, 0);

    *bytes = NULL;
    if (file == -EINVAL || file == -EISDIR)
        return qr_fail(QALLOW_E_NO_INPUT, "%s is no regular file, as programs and inputs must be",
                       qr_quotez(path));
    if (file < 0)
        return qr_fail_errno(-file, "%s", qr_quotez(path));
    int rc = read_open(os, file, path, limit, bytes, length);
    os->close(os->context, file);
    if (rc < 0) {
        qr_free(*bytes);
        *bytes = NULL;
    }
    return rc;
}

/* --- inputs --- */

static int find_input(const struct qv_session *s, const char *name)
{
    int page = qv_find_page(s->program, name);

    if (page >= 0 && s->program->pages[page].is_input)
        return page;
    char others[300] = "";
    size_t used = 0;
    for (size_t p = 0; p < s->program->page_count; p++)
        if (s->program->pages[p].is_input && used + QV_MAX_NAME + 8 < sizeof others)
            used += (size_t)snprintf(others + used, sizeof others - used, "%s%s",
                                     used ? ", " : ": it has ", s->program->pages[p].name);
    return qr_fail(QALLOW_E_ARGUMENT, "the program has no input %s%s", qr_quotez(name), others);
}

static int feed(struct qv_session *s, const struct qv_input *input)
{
    int page = find_input(s, input->name);
    uint8_t *bytes = NULL;
    uint64_t length = 0;

    if (page < 0)
        return page;
    const struct qv_page *declared = &s->program->pages[page];
    int rc = qv_read_file(input->path, qv_page_bytes(declared), &bytes, &length);
    if (rc < 0)
        return rc;
    if (length >> qb_type_shift(declared->type) << qb_type_shift(declared->type) != length)
        rc = qr_fail(QALLOW_E_ARGUMENT, "%s has %llu bytes: no whole number of %s",
                     qr_quotez(input->path), (unsigned long long)length,
                     qv_type_names[declared->type]);
    if (rc == 0)
        qv_set_input(s->machine, page, bytes, length);
    qr_free(bytes);
    return rc;
}

void qv_set_input(struct qv_machine *machine, int page, const uint8_t *bytes, uint64_t length)
{
    struct qv_memory *memory = &machine->pages[page];

    if (length)
        memcpy(memory->bytes, bytes, length);
    memory->size = length;
    memory->count = length >> qb_type_shift(machine->program->pages[page].type);
}

static int feed_all(struct qv_session *s, const struct qv_session_options *options, int need_all)
{
    for (size_t i = 0; i < options->input_count; i++) {
        int rc = feed(s, &options->inputs[i]);
        if (rc < 0)
            return rc;
    }
    for (size_t p = 0; need_all && p < s->program->page_count; p++) {
        size_t i = 0;
        while (i < options->input_count &&
               strcmp(options->inputs[i].name, s->program->pages[p].name) != 0)
            i++;
        if (s->program->pages[p].is_input && i == options->input_count)
            return qr_fail(QALLOW_E_ARGUMENT, "the program needs an input: --input %s=FILE",
                           s->program->pages[p].name);
    }
    return 0;
}

/* --- epochs --- */

int qv_session_derive(struct qv_session *s, int is_logged)
{
    struct qv_computed before, now;

    s->waves = s->store ? s->epoch + 1 : s->waves + 1;
    qv_nodes_computed(s->nodes, &before);
    s->nodes_are_logged = is_logged;
    int rc = qv_nodes_update(s->nodes, s->waves, is_logged);
    if (rc == QALLOW_E_FUNCTION && s->store)
        rc = qr_fail(rc, "epoch %llu: %s", (unsigned long long)s->waves, qallow_error_detail());
    qv_nodes_computed(s->nodes, &now);
    if (now.computed != before.computed) {
        qt_add(QT_VM_COMPUTED, now.computed - before.computed);
        qt_add(QT_VM_COMPUTED_EQUAL, now.equal - before.equal);
        qt_add(QT_VM_COMPUTED_BYTES, now.bytes - before.bytes);
    }
    return rc;
}

void qv_clear_dirty(struct qv_machine *m)
{
    size_t count = m->program->page_count;
    for (size_t i = qv_next_touched(m, 0); i < count; i = qv_next_touched(m, i + 1))
        qv_clean(m, i);
}

/* For what has not been recorded. */
static void set_fuel(struct qv_session *s)
{
    const struct qv_program *p = s->program;

    s->machine->fuel_limit = s->set_fuel ? s->set_fuel : p->fuel;
    s->machine->node_fuel = s->set_fuel ? s->set_fuel : p->node_fuel ? p->node_fuel : p->fuel;
}

int qv_session_commit(struct qv_session *s)
{
    int is_recorded = s->store && s->epoch == qallow_view_epoch(qallow_newest(s->store));

    if (is_recorded)
        qv_nodes_attach(s->nodes, s->store, s->page_ids);
    int rc = qv_session_derive(s, is_recorded);
    if (rc < 0)
        return rc;
    if (is_recorded)
        return qv_record_tick(s, &s->epoch);
    s->epoch += s->store != NULL; /* it is there already */
    set_fuel(s);
    qv_clear_dirty(s->machine);
    return 0;
}

/* --- making --- */

int qv_session_new(const char *text, size_t length, const char *path,
                   const struct qv_session_options *options, struct qv_session **session)
{
    struct qv_source_error unused;
    struct qv_session *s = qr_calloc(1, sizeof *s);

    *session = NULL;
    if (!s)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a machine");
    int rc =
        qv_assemble(text, length, path, &s->program, options->error ? options->error : &unused);
    if (rc == 0 && options->max_memory && qv_program_memory(s->program) > options->max_memory)
        rc = qr_fail(QALLOW_E_LIMIT,
                     "%s: the machine takes up to %llu bytes: at most %llu (--max-memory)",
                     qr_quotez(path), (unsigned long long)qv_program_memory(s->program),
                     (unsigned long long)options->max_memory);
    if (rc == 0)
        rc = qv_machine_create(s->program, &s->machine);
    if (rc == 0)
        rc = qv_machine_set_threads(s->machine, options->threads);
    if (rc == 0)
        rc = qv_nodes_create(s->machine, &s->nodes);
    if (rc == 0) {
        s->page_ids = qr_calloc(s->program->page_count + 1, sizeof *s->page_ids);
        s->text = qr_malloc(length + 1);
        if (!s->page_ids || !s->text)
            rc = qr_fail(QALLOW_E_NO_MEMORY, "no memory for a machine");
    }
    if (rc < 0) {
        qv_session_close(s);
        return rc;
    }
    s->threads = options->threads;
    s->set_fuel = options->fuel;
    s->max_memory = options->max_memory;
    memcpy(s->text, text, length);
    s->text_length = length;
    set_fuel(s);
    s->machine->interrupted = options->interrupted;
    s->machine->interrupted_context = options->interrupted_context;
    *session = s;
    return 0;
}

int qv_session_create(const char *text, size_t length, const char *path,
                      const struct qv_session_options *options, struct qv_session **session)
{
    struct qv_session *s = NULL;
    int rc = qv_session_new(text, length, path, options, &s);

    *session = NULL;
    if (rc < 0)
        return rc;
    s->machine->random = options->seed;
    s->follows = options->follows;
    rc = options->inputs_come ? 0 : feed_all(s, options, 1);
    if (rc == 0)
        rc = qv_layout_new(s);
    if (rc == 0)
        rc = qv_session_derive(s, 0);
    if (rc == 0 && options->has_no_log)
        qv_clear_dirty(s->machine);
    else if (rc == 0)
        rc = qv_record_new(s, options->log, &options->store, NULL);
    if (rc < 0) {
        qv_session_close(s);
        return rc;
    }
    *session = s;
    return 0;
}

/* --- resuming --- */

static int resume_here(struct qv_session *s, const char *log,
                       const struct qv_session_options *options)
{
    struct qallow_options store = options->store;

    store.writable = 1;
    store.create = 0;
    store.uuid = NULL;
    int rc = qallow_open(log, &store, &s->store);
    if (rc < 0)
        return rc;
    uint64_t newest = qallow_view_epoch(qallow_newest(s->store));
    if (newest != s->epoch)
        return qr_fail(QALLOW_E_BUSY, "%s got further epochs meanwhile", qr_quotez(log));
    return qv_find_pages(s, qallow_newest(s->store));
}

/* Inputs that are given anew are an epoch of their own. */
static int change_inputs(struct qv_session *s, const struct qv_session_options *options)
{
    int rc = feed_all(s, options, 0);

    if (rc < 0 || options->input_count == 0)
        return rc;
    for (size_t p = 0; p < s->program->page_count; p++)
        if (s->program->pages[p].is_input)
            qv_touch_all(s->machine, p);
    qt_add(QT_VM_INPUTS, 1);
    return qv_session_commit(s);
}

/* Goes on writing: in the log itself, or in a new one, which says where it comes from. */
static int resume_loaded(struct qv_session *s, const char *log, const uint8_t uuid[16],
                         uint64_t newest, const struct qv_session_options *options)
{
    char label[96];
    int used = snprintf(label, sizeof label, "from ");

    if (options->has_no_log)
        return 0;
    if (!options->log && s->epoch != newest)
        return qr_fail(QALLOW_E_ARGUMENT,
                       "epoch %llu is not the newest (%llu): to go on from it, "
                       "name a new log with --log",
                       (unsigned long long)s->epoch, (unsigned long long)newest);
    if (!options->log)
        return resume_here(s, log, options);
    for (int i = 0; i < 16; i++)
        used += snprintf(label + used, sizeof label - (size_t)used, "%02x", uuid[i]);
    snprintf(label + used, sizeof label - (size_t)used, " epoch %llu",
             (unsigned long long)s->epoch);
    return qv_record_new(s, options->log, &options->store, label);
}

int qv_session_resume(const char *log, uint64_t epoch, const struct qv_session_options *options,
                      struct qv_session **session)
{
    struct qallow_stats stats = QALLOW_STATS_INIT;
    struct qallow_store *from = NULL;
    struct qv_session *s = NULL;
    int rc = qallow_open(log, NULL, &from);

    *session = NULL;
    if (rc < 0)
        return rc;
    rc = qallow_stats_get(from, &stats);
    if (rc == 0)
        rc = qv_load(from, log, epoch ? epoch : stats.last_epoch, options, &s);
    if (rc < 0) {
        qallow_close(from);
        return rc;
    }
    qallow_close(from);
    rc = resume_loaded(s, log, stats.uuid, stats.last_epoch, options);
    if (rc == 0 && options->patch.text)
        rc = qv_session_patch(s, options->patch.text, options->patch.length, options->patch.path,
                              options->error, options->patch.patched);
    if (rc == 0 && !options->inputs_come)
        rc = change_inputs(s, options);
    if (rc < 0) {
        qv_session_close(s);
        return rc;
    }
    *session = s;
    return 0;
}

int qv_session_look(const char *log, uint64_t epoch, uint64_t max_memory,
                    struct qv_session **session)
{
    struct qv_session_options options = {.has_no_log = 1, .threads = 1, .max_memory = max_memory};
    return qv_session_resume(log, epoch, &options, session);
}

/* --- ticks --- */

int qv_session_tick(struct qv_session *session, enum qv_stop *stop, uint64_t *epoch)
{
    int rc = qv_session_catch_up(session);
    struct qv_machine *m = session->machine;

    if (rc < 0)
        return rc;
    if (m->halted)
        return qr_fail(QALLOW_E_STATE, "the program has halted");
    qv_tick_begin(m);
    if (m->watch.what & QALLOW_VM_ON_TICK &&
        m->watch.tell(m->watch.context, m, QALLOW_VM_ON_TICK, 0) != 0) {
        *stop = QV_HOOKED;
        return 0;
    }
    return qv_session_continue(session, stop, epoch);
}

int qv_session_continue(struct qv_session *session, enum qv_stop *stop, uint64_t *epoch)
{
    struct qv_machine *m = session->machine;
    char text[600];

    uint64_t fuel_used = m->fuel_used;

    *stop = qv_run(m);
    if (*stop == QV_HOOKED)
        return 0;
    if (*stop == QV_INTERRUPTED)
        return qr_fail(QALLOW_E_INTERRUPTED, "stopped in tick %llu", (unsigned long long)m->tick);
    if (qv_is_failure(*stop)) {
        qv_describe_stop(m, *stop, text, sizeof text);
        return qr_fail(*stop == QV_OUT_OF_FUEL ? QALLOW_E_LIMIT : QALLOW_E_STATE, "tick %llu: %s",
                       (unsigned long long)m->tick, text);
    }
    int rc = qv_drop_retired(session);
    if (rc < 0)
        return rc;
    rc = qv_session_commit(session);
    session->was_patched = 0;
    if (rc < 0) { /* it never was */
        m->tick--;
        m->fuel_used = fuel_used;
        m->halted = 0;
    }
    if (rc == QALLOW_E_FUNCTION)
        rc = qr_fail(rc, "tick %llu: %s", (unsigned long long)m->tick, qallow_error_detail());
    if (rc == 0) {
        qt_add(QT_VM_TICKS, 1);
        qt_add(QT_VM_FUEL, m->fuel_used - fuel_used);
        qt_add(QT_VM_EMITTED, m->emit_count);
    }
    if (epoch)
        *epoch = session->epoch;
    if (rc == 0 && m->watch.what & QALLOW_VM_ON_TICK_DONE)
        m->watch.tell(m->watch.context, m, QALLOW_VM_ON_TICK_DONE, 0);
    return rc;
}

uint64_t qv_session_epoch(const struct qv_session *session) { return session->epoch; }
int qv_session_was_patched(const struct qv_session *session) { return session->was_patched; }
struct qv_machine *qv_session_machine(struct qv_session *session) { return session->machine; }
struct qallow_store *qv_session_store(struct qv_session *session) { return session->store; }

int qv_session_close(struct qv_session *session)
{
    if (!session)
        return 0;
    qv_nodes_detach(session->nodes);
    int rc = qallow_close(session->store);
    qv_nodes_destroy(session->nodes);
    qv_machine_destroy(session->machine);
    qv_program_destroy(session->program);
    qr_free(session->page_ids);
    qr_free(session->layout);
    qr_free(session->writers);
    qr_free(session->text);
    qr_free(session->buffer);
    qr_free(session);
    return rc;
}
