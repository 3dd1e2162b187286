/* SPDX-License-Identifier: Apache-2.0 */
/* `qallow vm --explain`: from a page to the change that made it be computed, or to who wrote it. */
#include <inttypes.h>
#include <stdio.h>

#include "interface/cmd_vm.h"
#include "qallow/graph.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "vm/world.h"

static const char *const words[] = {"source", "input", "definition", "request"};

static const struct qv_page *page_of(const struct qv_machine *m, uint64_t id)
{
    return &m->program->pages[id - 1];
}

static void print_writer(const struct qv_writer *writer)
{
    if (!writer->writes)
        return;
    printf(" by %s, line %u: %s", writer->function, writer->line, writer->instruction);
    if (writer->writes > 1)
        printf(", the last of %" PRIu64 " writes", writer->writes);
}

static void json_writer(cJSON *json, const struct qv_writer *writer)
{
    qi_json_u64(json, "writes", writer->writes);
    if (!writer->writes)
        return;
    cJSON_AddStringToObject(json, "function", writer->function);
    qi_json_u64(json, "line", writer->line);
    cJSON_AddStringToObject(json, "instruction", writer->instruction);
}

static void print_extent(const struct qallow_reason *r)
{
    if (r->length == 0)
        printf("; nothing changed\n");
    else
        printf("; what changed lies from byte %" PRIu64 " to %" PRIu64 "\n", r->offset,
               r->offset + r->length - 1);
}

/* The function that a patch has defined anew, and that makes the page stale, or -1. */
static int defined_anew(const struct qv_session *session, const struct qv_machine *m,
                        const struct qallow_reason *r)
{
    if (r->why != QALLOW_WHY_DEFINITION || !qv_session_was_patched(session))
        return -1;
    return qv_find_reached(m->program, page_of(m, r->page)->function, m->program->world);
}

static void print_definition(const struct qv_session *session, const struct qv_machine *m,
                             const struct qallow_reason *r)
{
    int function = defined_anew(session, m, r);

    if (function < 0)
        printf("which was new");
    else if (function == (int)page_of(m, r->page)->function)
        printf("which was defined anew in world %" PRIu32, m->program->world);
    else
        printf("since %s was defined anew in world %" PRIu32, m->program->functions[function].name,
               m->program->world);
}

static void print_reason(const struct qv_session *session, const struct qv_machine *m,
                         const struct qallow_reason *r)
{
    const struct qv_page *page = page_of(m, r->page);
    struct qv_writer writer = qv_session_writer(session, (int)(r->page - 1));

    printf("%s: ", page->name);
    if (r->why == QALLOW_WHY_SOURCE) {
        printf("%s in epoch %" PRIu64, page->is_input ? "an input, fed" : "written", r->epoch);
        print_writer(&writer);
        print_extent(r);
        return;
    }
    printf("epoch %" PRIu64 ", %" PRIu64 " bytes computed by %s, ", r->epoch, r->computed_bytes,
           r->name);
    if (r->why == QALLOW_WHY_INPUT)
        printf("since %s changed", page_of(m, r->cause)->name);
    else
        print_definition(session, m, r);
    print_extent(r);
}

static void json_reason(cJSON *array, const struct qv_session *session, const struct qv_machine *m,
                        const struct qallow_reason *r)
{
    cJSON *json = cJSON_CreateObject();
    struct qv_writer writer = qv_session_writer(session, (int)(r->page - 1));
    int function = defined_anew(session, m, r);

    cJSON_AddStringToObject(json, "page", page_of(m, r->page)->name);
    cJSON_AddStringToObject(json, "why", words[r->why]);
    qi_json_u64(json, "epoch", r->epoch);
    if (r->cause)
        cJSON_AddStringToObject(json, "cause", page_of(m, r->cause)->name);
    if (r->name)
        cJSON_AddStringToObject(json, "function", r->name);
    if (r->why == QALLOW_WHY_SOURCE)
        json_writer(json, &writer);
    if (function >= 0)
        cJSON_AddStringToObject(json, "defined_anew", m->program->functions[function].name);
    qi_json_u64(json, "computed_bytes", r->computed_bytes);
    qi_json_u64(json, "changed_offset", r->offset);
    qi_json_u64(json, "changed_length", r->length);
    cJSON_AddItemToArray(array, json);
}

static int say(struct qi_context *context, const struct qv_session *session,
               const struct qv_machine *m, const struct qallow_reason *reasons, size_t count)
{
    if (context->json) {
        cJSON *json = qi_json_begin(context);
        cJSON *array = cJSON_AddArrayToObject(json, "reasons");
        for (size_t i = 0; i < count; i++)
            json_reason(array, session, m, &reasons[i]);
        return qi_json_end(json);
    }
    for (size_t i = 0; i < count; i++)
        print_reason(session, m, &reasons[i]);
    return qi_stdout_check();
}

/* A page that is not derived: it is its own reason. */
static int explain_plain(struct qi_context *context, const struct qv_session *session,
                         const struct qv_machine *m, int page)
{
    struct qv_writer writer = qv_session_writer(session, page);
    uint64_t epoch = qv_session_epoch(session);

    if (context->json) {
        cJSON *json = qi_json_begin(context), *array = cJSON_AddArrayToObject(json, "reasons");
        cJSON *reason = cJSON_CreateObject();
        cJSON_AddStringToObject(reason, "page", m->program->pages[page].name);
        cJSON_AddStringToObject(reason, "why", words[QALLOW_WHY_SOURCE]);
        qi_json_u64(reason, "epoch", epoch);
        json_writer(reason, &writer);
        cJSON_AddItemToArray(array, reason);
        return qi_json_end(json);
    }
    printf("%s: %s epoch %" PRIu64, m->program->pages[page].name,
           m->program->pages[page].is_input ? "an input, fed in"
           : writer.writes != 0             ? "written in"
                                            : "as declared, since",
           epoch);
    print_writer(&writer);
    putchar('\n');
    return qi_stdout_check();
}

static int explain_derived(struct qi_context *context, struct qv_session *session,
                           const struct qv_machine *m, int page)
{
    size_t count = 0, most = m->program->page_count;
    struct qallow_reason *reasons = qr_calloc(most, sizeof *reasons);
    int rc = reasons ? 0 : qr_fail(QALLOW_E_NO_MEMORY, "no memory for the reasons");

    for (size_t i = 0; rc == 0 && i < most; i++)
        reasons[i] = (struct qallow_reason)QALLOW_REASON_INIT;
    if (rc == 0)
        rc = qallow_graph_explain(qv_nodes_graph(qv_session_nodes(session)), (uint64_t)page + 1,
                                  reasons, most, &count);
    if (rc == 0)
        rc = say(context, session, m, reasons, count < most ? count : most);
    qr_free(reasons);
    return rc;
}

int vm_explain(struct qi_context *context, const struct vm *vm)
{
    struct qv_session *session = NULL;
    int rc = qv_session_explain(vm->resume, vm->epoch, vm->explain, vm->max_memory, &session);

    if (rc < 0)
        return rc;
    const struct qv_machine *m = qv_session_machine(session);
    int page = qv_find_page(m->program, vm->explain);
    rc = m->program->pages[page].is_derived ? explain_derived(context, session, m, page)
                                            : explain_plain(context, session, m, page);
    int closed = qv_session_close(session);
    return rc ? rc : closed;
}
