/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a log again: a second log is written beside nothing, in a directory of its own that goes
 * afterwards, and the digest of each of its epochs must be that of the log. What comes from
 * outside, the inputs, is taken from the log; everything else is computed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "vm/session_internal.h"

struct checking {
    struct qallow_store *log;
    struct qv_session *session; /* that runs again */
    char directory[512], copy[600];
};

static int compare(struct checking *c, uint64_t epoch)
{
    struct qallow_epoch recorded = QALLOW_EPOCH_INIT, computed = QALLOW_EPOCH_INIT;
    int rc = qallow_epoch_get(c->log, epoch, &recorded);

    if (rc == 0)
        rc = qallow_epoch_get(c->session->store, c->session->epoch, &computed);
    if (rc == 0 && memcmp(recorded.digest, computed.digest, sizeof recorded.digest) != 0)
        rc = qr_fail(QALLOW_E_DIFFERS, "epoch %llu: running it again gives another state",
                     (unsigned long long)epoch);
    return rc;
}

/* Takes the inputs over if this epoch changed them. */
static int take_inputs(struct qv_session *s, struct qallow_view *view)
{
    struct qv_machine *m = s->machine;
    uint64_t id = s->followed_id; /* of our own log */
    int rc = qv_load_followed(s, view);

    s->followed_id = id;
    s->followed_is_new = s->follows;
    if (rc < 0)
        return rc;
    for (size_t p = 0; p < s->program->page_count; p++) {
        if (!s->program->pages[p].is_input)
            continue;
        rc = qv_load_data(s, view, p);
        if (rc < 0)
            return rc;
        qv_touch_all(m, p);
    }
    return 0;
}

/* An epoch in which the next tick is still the same has changed the program, or else inputs. */
static int change(struct qv_session *s, struct qallow_view *view)
{
    struct qv_source_error error;
    struct qv_patched patched;
    uint8_t *text = NULL;
    uint64_t length = 0;
    int rc = qv_load_page(view, "program.qvm", QV_MAX_TEXT, &text, &length);

    if (rc == 0 && (length != s->text_length || memcmp(text, s->text, length) != 0)) {
        rc = qv_session_patch(s, (const char *)text, length, "program.qvm", &error, &patched);
        rc = rc == QALLOW_E_ARGUMENT ? QALLOW_E_DIFFERS : rc; /* the detail stays */
    } else if (rc == 0) {
        rc = take_inputs(s, view);
        if (rc == 0)
            rc = qv_session_commit(s);
    }
    qr_free(text);
    return rc;
}

static int tick_again(struct qv_session *s, uint64_t epoch, const struct qv_moment *behind)
{
    enum qv_stop stop = QV_TICK_DONE;

    if (s->machine->halted)
        return qr_fail(QALLOW_E_DIFFERS, "epoch %llu: the program has halted before",
                       (unsigned long long)epoch);
    qv_fuel_as_recorded(s->machine, behind);
    int rc = qv_session_tick(s, &stop, NULL);
    if (rc == QALLOW_E_FUNCTION || qv_is_failure(stop))
        rc = qr_fail(QALLOW_E_DIFFERS, "epoch %llu: running it again, %s",
                     (unsigned long long)epoch, qallow_error_detail());
    return rc;
}

int qv_step_again(struct qv_session *s, struct qallow_store *log, uint64_t epoch)
{
    struct qallow_view *view = NULL;
    struct qv_moment moment;
    int rc = qv_moment_of(log, epoch, &moment);

    if (rc < 0)
        return rc;
    if (moment.tick != s->machine->tick)
        return tick_again(s, epoch, &moment);
    rc = qallow_view_at(log, epoch, &view);
    if (rc == 0)
        rc = change(s, view);
    qallow_view_destroy(view);
    return rc;
}

static int make_directory(struct checking *c)
{
    const char *place = getenv("TMPDIR");

    snprintf(c->directory, sizeof c->directory, "%.400s/qallow-check-XXXXXX",
             place && *place ? place : "/tmp");
    if (!mkdtemp(c->directory)) {
        c->directory[0] = '\0';
        return qr_fail(QALLOW_E_CANNOT_CREATE, "no directory for the second run (TMPDIR)");
    }
    snprintf(c->copy, sizeof c->copy, "%s/again.tlog", c->directory);
    return 0;
}

static void remove_directory(struct checking *c)
{
    static const char *const endings[] = {"", "-index", ".lock", ".bad"};
    char path[700];

    if (!c->directory[0])
        return;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        snprintf(path, sizeof path, "%s%s", c->copy, endings[i]);
        unlink(path);
    }
    rmdir(c->directory);
}

static struct qv_session_options session_options(const struct qv_check_options *o)
{
    return (struct qv_session_options){.threads = o->threads,
                                       .fuel = QV_MAX_FUEL,
                                       .max_memory = o->max_memory,
                                       .has_no_log = 1,
                                       .interrupted = o->interrupted,
                                       .interrupted_context = o->context};
}

/* What was derived part by part, tick by tick, is what is derived at once: loading looks. */
static int load_last(struct checking *c, const char *log, uint64_t last,
                     const struct qv_check_options *o)
{
    const struct qv_session_options options = session_options(o);
    struct qv_session *session = NULL;
    int rc = qv_load(c->log, log, last, &options, &session);

    qv_session_close(session);
    return rc;
}

/* The log and its first epoch, which the machine is in. */
static int begin(struct checking *c, const char *log, uint64_t first,
                 const struct qv_check_options *o)
{
    const struct qv_session_options options = session_options(o);
    struct qallow_options store = QALLOW_OPTIONS_INIT;
    int rc = qv_load(c->log, log, first, &options, &c->session);

    if (rc == 0)
        rc = make_directory(c);
    store.sync = QALLOW_SYNC_NONE;
    if (rc == 0)
        rc = qv_record_new(c->session, c->copy, &store, NULL);
    return rc < 0 ? rc : compare(c, first);
}

static int run_again(struct checking *c, const char *log, const struct qv_check_options *o,
                     uint64_t *epochs)
{
    struct qallow_stats stats = QALLOW_STATS_INIT;
    int rc = qallow_stats_get(c->log, &stats);

    if (rc == 0)
        rc = begin(c, log, stats.first_epoch, o);
    for (uint64_t e = stats.first_epoch + 1; rc == 0 && e <= stats.last_epoch; e++) {
        rc = o->interrupted && o->interrupted(o->context)
                 ? qr_fail(QALLOW_E_INTERRUPTED, "stopped before epoch %llu", (unsigned long long)e)
                 : qv_step_again(c->session, c->log, e);
        if (rc == 0)
            rc = compare(c, e);
        if (o->progress)
            o->progress(o->context, e - stats.first_epoch, stats.last_epoch - stats.first_epoch);
    }
    *epochs = stats.last_epoch - stats.first_epoch + 1;
    return rc < 0 ? rc : load_last(c, log, stats.last_epoch, o);
}

int qv_session_check(const char *log, const struct qv_check_options *options, uint64_t *epochs)
{
    struct checking c = {.log = NULL};
    int rc = qallow_open(log, NULL, &c.log);

    if (rc < 0)
        return rc;
    rc = run_again(&c, log, options, epochs);
    qv_session_close(c.session);
    remove_directory(&c);
    qallow_close(c.log);
    return rc;
}
