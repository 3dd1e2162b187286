/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow vm --trace`, `--break` and `--counts`: who watches the machine writes a line for what
 * happens, or stops the run; calls are counted by the interpreter itself.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "interface/cmd_vm.h"
#include "runtime/error.h"

/* --- where to stop --- */

static int place_in(const struct qv_machine *m, const char *name, size_t length, const char *label,
                    const struct qv_function **function, const uint64_t **place)
{
    for (size_t i = 0; i < m->program->function_count; i++) {
        const struct qv_function *f = &m->program->functions[i];
        if (strlen(f->name) != length || memcmp(f->name, name, length) != 0)
            continue;
        *function = f;
        *place = m->entries[i].code;
        for (size_t l = 0; label && l < f->label_count; l++)
            if (strcmp(f->labels[l].name, label) == 0) {
                *place = m->entries[i].code + f->labels[l].word;
                label = NULL;
            }
        return label == NULL;
    }
    return 0;
}

/* FUNCTION or FUNCTION.LABEL */
static int find_place(const struct qv_machine *m, const char *text, const uint64_t **place)
{
    const char *point = strchr(text, '.');
    size_t length = point ? (size_t)(point - text) : strlen(text);
    const struct qv_function *function = NULL;

    int is_there = place_in(m, text, length, point ? point + 1 : NULL, &function, place);
    if (is_there && function->formal_count) /* another machine runs them, behind the tick */
        return qr_fail(QALLOW_E_ARGUMENT,
                       "--break %s: %s computes derived pages, behind the tick, and cannot be "
                       "stopped: --trace FILE --trace-events instructions,nodes shows what it does",
                       qr_quotez(text), function->name);
    if (is_there)
        return 0;
    return qr_fail(QALLOW_E_ARGUMENT,
                   "--break %s: expected a FUNCTION or FUNCTION.LABEL of the "
                   "program",
                   qr_quotez(text));
}

/* --- what is written --- */

static const struct {
    const char *name, *list;
    uint32_t what;
} events[] = {
    {"instruction", "instructions", QALLOW_VM_ON_INSTRUCTION},
    {"call", "calls", QALLOW_VM_ON_CALL},
    {"return", "calls", QALLOW_VM_ON_RETURN},
    {"node", "nodes", QALLOW_VM_ON_NODE},
    {"node-done", "nodes", QALLOW_VM_ON_NODE_DONE},
    {"tick", "ticks", QALLOW_VM_ON_TICK},
    {"tick-done", "ticks", QALLOW_VM_ON_TICK_DONE},
};
enum { EVENTS = sizeof events / sizeof *events };

/* A list such as calls,ticks; nothing means everything. */
static int parse_events(const char *list, uint32_t *what)
{
    *what = list ? 0 : QALLOW_VM_ON_TICK_DONE * 2 - 1;
    while (list && *list) {
        size_t length = strcspn(list, ",");
        uint32_t before = *what;
        for (size_t i = 0; i < EVENTS; i++)
            if (strlen(events[i].list) == length && memcmp(events[i].list, list, length) == 0)
                *what |= events[i].what;
        if (*what == before)
            return 0;
        list += length + (list[length] == ',');
    }
    return *what != 0;
}

static void write_event(const struct vm_watch *w, const struct qallow_vm_event *event)
{
    char text[300];
    size_t i = 0;

    while (events[i].what != event->what)
        i++;
    qallow_vm_event_text(event, text, sizeof text);
    fprintf(w->trace,
            w->trace_is_json ? "{\"event\":\"%s\",\"tick\":%" PRIu64 ",\"epoch\":%" PRIu64
                               ",\"function\":\"%s\",\"word\":%u,\"line\":%u,\"depth\":%" PRIu64
                               ",\"fuel\":%" PRIu64 ",\"page\":\"%s\",\"instruction\":\"%s\"}\n"
                             : "%s,%" PRIu64 ",%" PRIu64 ",%s,%u,%u,%" PRIu64 ",%" PRIu64
                               ",%s,\"%s\"\n",
            events[i].name, event->tick, event->epoch, event->function, event->word, event->line,
            event->depth, event->fuel, event->page ? event->page : "", text);
}

static int tell(void *context, struct qv_machine *m, uint32_t what, uint32_t which)
{
    struct vm_watch *w = context;
    struct qallow_vm_event event;

    if (what == QALLOW_VM_ON_INSTRUCTION && m == w->machine && m->pc == w->stop_at) {
        w->reached = 1;
        return 1;
    }
    if (w->trace && w->what & what) {
        qv_event_of(w->session, m, what, which, &event);
        write_event(w, &event);
    }
    return 0;
}

static int open_trace(struct vm_watch *w, const char *path)
{
    size_t length = strlen(path);

    w->trace = fopen(path, "w");
    if (!w->trace)
        return qr_fail_errno(errno, "%s", qr_quotez(path));
    w->trace_is_json = (length > 5 && strcmp(path + length - 5, ".json") == 0) ||
                       (length > 6 && strcmp(path + length - 6, ".jsonl") == 0);
    if (!w->trace_is_json)
        fputs("event,tick,epoch,function,word,line,depth,fuel,page,instruction\n", w->trace);
    return 0;
}

static int check_events(struct qi_context *context, const struct vm *vm, uint32_t *what)
{
    if (parse_events(vm->trace_events, what))
        return 0;
    return qi_usage(context, "--trace-events: instructions, calls, nodes, ticks, or some of "
                             "them with commas between");
}

int vm_watch_check(struct qi_context *context, const struct vm *vm, const struct qv_machine *m)
{
    const char *const files[] = {vm->trace, vm->telemetry};
    const uint64_t *place;
    uint32_t what;
    int rc = check_events(context, vm, &what);

    if (rc == 0 && vm->stop_at)
        rc = find_place(m, vm->stop_at, &place);

    for (size_t i = 0; rc == 0 && i < sizeof files / sizeof *files; i++) {
        FILE *file = files[i] ? fopen(files[i], "a") : NULL;
        if (files[i] && !file)
            rc = qr_fail_errno(errno, "%s", qr_quotez(files[i]));
        if (file)
            fclose(file);
    }
    return rc;
}

int vm_watch_begin(struct qi_context *context, const struct vm *vm, struct qv_session *session,
                   struct vm_watch *watch)
{
    struct qv_machine *m = qv_session_machine(session);

    *watch = (struct vm_watch){.machine = m, .session = session};
    m->watch.tell = tell;
    m->watch.context = watch;
    int rc = check_events(context, vm, &watch->what);
    if (rc == 0 && vm->stop_at)
        rc = find_place(m, vm->stop_at, &watch->stop_at);
    if (rc == 0 && vm->trace)
        rc = open_trace(watch, vm->trace);
    if (rc == 0 && vm->counts)
        rc = qv_machine_count(m, 1);
    if (rc == 0)
        m->watch.what =
            (vm->trace ? watch->what : 0) | (vm->stop_at ? QALLOW_VM_ON_INSTRUCTION : 0);
    return rc;
}

static int say_counts(struct qi_context *context, const struct vm_watch *w)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < w->machine->program->function_count; i++) {
        const char *name = w->machine->program->functions[i].name;
        if (context->json) {
            cJSON *json = qi_json_begin(context);
            cJSON_AddStringToObject(json, "event", "calls");
            cJSON_AddStringToObject(json, "function", name);
            qi_json_u64(json, "calls", w->machine->watch.counts[i].calls);
            qi_json_u64(json, "computed", w->machine->watch.counts[i].called);
            rc = qi_json_end(json);
        } else {
            printf("%s: %" PRIu64 " calls", name, w->machine->watch.counts[i].calls);
            if (w->machine->watch.counts[i].called)
                printf(", %" PRIu64 " to compute a page", w->machine->watch.counts[i].called);
            putchar('\n');
            rc = qi_stdout_check();
        }
    }
    return rc;
}

int vm_watch_end(struct qi_context *context, struct vm_watch *watch)
{
    int rc = watch->machine->watch.counts ? say_counts(context, watch) : 0;

    if (watch->trace) {
        int failed = ferror(watch->trace), closed = fclose(watch->trace);
        if (closed != 0 || failed)
            rc = rc ? rc
                    : qr_fail(QALLOW_E_IO, "the trace could not be written: %s",
                              strerror(closed != 0 ? errno : EIO));
    }
    return rc;
}
