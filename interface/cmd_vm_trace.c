/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow vm --trace`, `--break` and `--counts`: a hook before every instruction writes a line or
 * stops the run; calls are counted by the interpreter itself.
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
                    const uint64_t **place)
{
    for (size_t i = 0; i < m->program->function_count; i++) {
        const struct qv_function *f = &m->program->functions[i];
        if (strlen(f->name) != length || memcmp(f->name, name, length) != 0)
            continue;
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

    if (place_in(m, text, length, point ? point + 1 : NULL, place))
        return 0;
    return qr_fail(QALLOW_E_ARGUMENT,
                   "--break %s: expected a FUNCTION or FUNCTION.LABEL of the "
                   "program",
                   qr_quotez(text));
}

/* --- the hook --- */

static void write_line(const struct vm_watch *w, const struct qv_machine *m)
{
    uint32_t function, word;
    char text[300];

    qv_locate(m, m->pc, &function, &word);
    const struct qv_function *f = &m->program->functions[function];
    qv_disassemble_one(m->program, f, word, text, sizeof text);
    uint64_t left = (uint64_t)m->fuel + m->fuel_reserve;
    fprintf(w->trace,
            w->trace_is_json ? "{\"tick\":%" PRIu64
                               ",\"function\":\"%s\",\"word\":%u,\"line\":%u,\"depth\":%" PRIu64
                               ",\"fuel\":%" PRIu64 ",\"instruction\":\"%s\"}\n"
                             : "%" PRIu64 ",%s,%u,%u,%" PRIu64 ",%" PRIu64 ",\"%s\"\n",
            m->tick, f->name, word, f->lines ? f->lines[word] : 0, m->depth, m->fuel_limit - left,
            text);
}

static int hook(void *context, struct qv_machine *m)
{
    struct vm_watch *w = context;

    if (m->pc == w->stop_at) {
        w->reached = 1;
        return 1;
    }
    if (w->trace)
        write_line(w, m);
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
        fputs("tick,function,word,line,depth,fuel,instruction\n", w->trace);
    return 0;
}

int vm_watch_begin(struct qi_context *context, const struct vm *vm, struct qv_machine *machine,
                   struct vm_watch *watch)
{
    int rc = 0;

    *watch = (struct vm_watch){.machine = machine};
    if (vm->stop_at)
        rc = find_place(machine, vm->stop_at, &watch->stop_at);
    if (rc == 0 && vm->trace)
        rc = open_trace(watch, vm->trace);
    if (rc == 0 && vm->counts) {
        watch->counts = calloc(machine->program->function_count, sizeof *watch->counts);
        if (!watch->counts)
            rc = qr_fail(QALLOW_E_NO_MEMORY, "no memory for the counts");
        machine->call_counts = watch->counts;
    }
    if (rc == 0 && (vm->trace || vm->stop_at)) {
        machine->hook = hook;
        machine->hook_context = watch;
    }
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
            qi_json_u64(json, "calls", w->counts[i]);
            rc = qi_json_end(json);
        } else {
            printf("%s: %" PRIu64 " calls\n", name, w->counts[i]);
            rc = qi_stdout_check();
        }
    }
    return rc;
}

int vm_watch_end(struct qi_context *context, struct vm_watch *watch)
{
    int rc = watch->counts ? say_counts(context, watch) : 0;

    if (watch->trace) {
        int failed = ferror(watch->trace);
        if (fclose(watch->trace) != 0 || failed)
            rc = rc ? rc : qr_fail(QALLOW_E_IO, "the trace could not be written");
    }
    free(watch->counts);
    return rc;
}
