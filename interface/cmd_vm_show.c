/* SPDX-License-Identifier: Apache-2.0 */
/* The state of a machine as it was in an epoch: where it goes on, calls, registers, pages. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "interface/cmd_vm.h"

enum { CALLS_SHOWN = 100 }; /* the innermost; a log may have millions */

struct place {
    const struct qv_function *function;
    uint32_t word, line;
    uint64_t base;
};

static struct place place_of(const struct qv_machine *m, const uint64_t *pc, uint64_t base)
{
    struct place place = {.base = base};
    uint32_t function;

    qv_locate(m, pc, &function, &place.word);
    place.function = &m->program->functions[function];
    place.line = place.function->lines ? place.function->lines[place.word] : 0;
    return place;
}

/* The innermost first; the last one is main. */
static struct place call_at(const struct qv_machine *m, uint64_t outwards)
{
    if (outwards == 0)
        return place_of(m, m->pc, m->base);
    const struct qv_frame *frame = &m->frames[m->depth - outwards];
    return place_of(m, frame->pc, frame->base);
}

static void print_registers(const struct qv_machine *m)
{
    struct place here = call_at(m, 0);

    for (uint32_t i = 0; i < here.function->registers; i++) {
        uint64_t bits = m->stack[m->base + i];
        double value;
        memcpy(&value, &bits, sizeof value);
        printf("  r%-3u %20" PRId64 "  0x%016" PRIx64 "  %.17g\n", i, (int64_t)bits, bits, value);
    }
}

static int print_text(const struct qv_machine *m, uint64_t epoch)
{
    char instruction[200];

    if (epoch)
        printf("epoch %" PRIu64 ": ", epoch);
    printf("%s, %" PRIu64 " ticks done, %" PRIu64 " fuel used", m->halted ? "halted" : "goes on",
           m->tick - 1, m->fuel_used);
    if (m->program->world)
        printf(", world %" PRIu32, m->program->world);
    putchar('\n');
    for (uint64_t i = 0; i <= m->depth && i < CALLS_SHOWN; i++) {
        struct place place = call_at(m, i);
        qv_disassemble_one(m->program, place.function, place.word, instruction, sizeof instruction);
        printf("%s %s, line %u: %s\n", i ? "called from" : "at", place.function->name, place.line,
               instruction);
    }
    if (m->depth >= CALLS_SHOWN)
        printf("called from %" PRIu64 " more\n", m->depth + 1 - CALLS_SHOWN);
    print_registers(m);
    for (size_t i = 0; i < m->program->page_count; i++)
        printf("%s %s: %" PRIu64 " of %s\n", m->program->pages[i].is_input ? "input" : "page",
               m->program->pages[i].name, m->pages[i].count,
               qv_type_names[m->program->pages[i].type]);
    return 0;
}

static void add_calls(cJSON *json, const struct qv_machine *m)
{
    cJSON *calls = cJSON_AddArrayToObject(json, "calls");

    for (uint64_t i = 0; i <= m->depth && i < CALLS_SHOWN; i++) {
        struct place place = call_at(m, i);
        cJSON *call = cJSON_CreateObject();
        cJSON_AddStringToObject(call, "function", place.function->name);
        qi_json_u64(call, "word", place.word);
        qi_json_u64(call, "line", place.line);
        cJSON *registers = cJSON_AddArrayToObject(call, "registers");
        for (uint32_t r = 0; r < place.function->registers; r++) {
            char text[24];
            snprintf(text, sizeof text, "%" PRId64, (int64_t)m->stack[place.base + r]);
            cJSON_AddItemToArray(registers, cJSON_CreateRaw(text));
        }
        cJSON_AddItemToArray(calls, call);
    }
}

static int print_json(struct qi_context *context, const struct qv_machine *m, uint64_t epoch)
{
    cJSON *json = qi_json_begin(context), *pages;

    if (epoch)
        qi_json_u64(json, "epoch", epoch);
    cJSON_AddBoolToObject(json, "halted", m->halted);
    qi_json_u64(json, "ticks", m->tick - 1);
    qi_json_u64(json, "fuel", m->fuel_used);
    qi_json_u64(json, "random", m->random);
    qi_json_u64(json, "world", m->program->world);
    qi_json_u64(json, "depth", m->depth);
    add_calls(json, m);
    pages = cJSON_AddArrayToObject(json, "pages");
    for (size_t i = 0; i < m->program->page_count; i++) {
        cJSON *page = cJSON_CreateObject();
        cJSON_AddStringToObject(page, "name", m->program->pages[i].name);
        cJSON_AddStringToObject(page, "type", qv_type_names[m->program->pages[i].type]);
        qi_json_u64(page, "count", m->pages[i].count);
        cJSON_AddItemToArray(pages, page);
    }
    return qi_json_end(json);
}

int vm_print_state(struct qi_context *context, const struct qv_machine *machine, uint64_t epoch)
{
    return context->json ? print_json(context, machine, epoch) : print_text(machine, epoch);
}

int vm_show(struct qi_context *context, const char *log, uint64_t epoch, uint64_t max_memory)
{
    struct qv_session *session = NULL;
    int rc = qv_session_look(log, epoch, max_memory, &session);

    if (rc < 0)
        return rc;
    rc = vm_print_state(context, qv_session_machine(session), epoch);
    int closed = qv_session_close(session);
    return rc ? rc : closed;
}
