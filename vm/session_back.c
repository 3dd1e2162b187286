/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Going back in a run: the machine is loaded from an earlier epoch of its own log, and goes on from
 * there through the epochs that are recorded already. What is no tick among them, a patch or new
 * inputs, is loaded, too. Where the program was another one, the machine is another one.
 */
#include <string.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "vm/session_internal.h"
#include "vm/state.h"

int qv_moment_of(struct qallow_store *log, uint64_t epoch, struct qv_moment *moment)
{
    struct qallow_page page = QALLOW_PAGE_INIT;
    struct qallow_view *view = NULL;
    uint8_t header[QV_STATE_MOMENT];
    int rc = qallow_view_at(log, epoch, &view);

    if (rc < 0)
        return rc;
    rc = qallow_page_lookup(view, "machine", &page);
    if (rc == QALLOW_E_PAGE_NOT_FOUND || (rc == 0 && page.bytes < sizeof header))
        rc = qr_fail(QALLOW_E_SERIALIZATION, "epoch %llu is not of a machine",
                     (unsigned long long)epoch);
    if (rc == 0)
        rc = qallow_page_read(view, page.id, 0, header, sizeof header);
    if (rc == 0)
        qv_state_moment(header, &moment->tick, &moment->fuel_used);
    qallow_view_destroy(view);
    return rc;
}

void qv_fuel_as_recorded(struct qv_machine *m, const struct qv_moment *behind)
{
    uint64_t used = behind->fuel_used - m->fuel_used;
    m->fuel_limit = used <= QV_MAX_FUEL ? used : QV_MAX_FUEL;
    m->node_fuel = QV_MAX_FUEL; /* derived pages are there, so their functions came to an end */
}

/* A machine of another program takes the place of the present one. */
static int load_program(struct qv_session *s, struct qallow_view *view, uint64_t epoch)
{
    struct qv_session_options options = {.threads = s->threads,
                                         .fuel = s->set_fuel,
                                         .max_memory = s->max_memory,
                                         .has_no_log = 1,
                                         .interrupted = s->machine->interrupted,
                                         .interrupted_context = s->machine->interrupted_context};
    struct qv_session *other = NULL;
    int rc = qv_load(s->store, "the log", epoch, &options, &other);

    if (rc == 0)
        rc = qv_carry_watch(s->machine, other->machine);
    if (rc == 0)
        rc = qv_find_pages(other, view);
    if (rc == 0)
        qv_exchange(s, other);
    qv_session_close(other);
    return rc;
}

int qv_session_rewind(struct qv_session *s, uint64_t epoch)
{
    struct qallow_view *view = NULL;
    uint8_t *text = NULL;
    uint64_t length = 0;
    int rc = s->store ? qallow_view_at(s->store, epoch, &view)
                      : qr_fail(QALLOW_E_STATE, "the machine has no log");

    if (rc < 0)
        return rc;
    rc = qv_load_page(view, "program.qvm", QV_MAX_TEXT, &text, &length);
    if (rc == 0 && (length != s->text_length || memcmp(text, s->text, length) != 0))
        rc = load_program(s, view, epoch);
    else if (rc == 0)
        rc = qv_load_all(s, view);
    qr_free(text);
    qallow_view_destroy(view);
    qv_clear_dirty(s->machine);
    s->text_is_new = 0;
    if (rc == 0)
        s->epoch = epoch;
    return rc;
}

int qv_session_back(struct qv_session *session)
{
    struct qallow_stats stats = QALLOW_STATS_INIT;
    struct qv_moment at = {.tick = session->machine->tick};
    uint64_t epoch = session->epoch;
    int rc = session->store ? qallow_stats_get(session->store, &stats)
                            : qr_fail(QALLOW_E_STATE, "the machine has no log");

    while (rc == 0 && at.tick == session->machine->tick) {
        if (epoch-- == stats.first_epoch)
            return qr_fail(QALLOW_E_EPOCH_NOT_FOUND, "no tick before this is in the log");
        rc = qv_moment_of(session->store, epoch, &at);
    }
    return rc < 0 ? rc : qv_session_rewind(session, epoch);
}

int qv_session_catch_up(struct qv_session *session)
{
    uint64_t newest =
        session->store ? qallow_view_epoch(qallow_newest(session->store)) : session->epoch;
    struct qv_moment next;
    int rc = 0;

    while (rc == 0 && session->epoch < newest) {
        rc = qv_moment_of(session->store, session->epoch + 1, &next);
        if (rc == 0 && next.tick != session->machine->tick) {
            qv_fuel_as_recorded(session->machine, &next);
            return 0;
        }
        if (rc == 0)
            rc = qv_session_rewind(session, session->epoch + 1);
    }
    return rc;
}
