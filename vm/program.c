/* SPDX-License-Identifier: Apache-2.0 */
/* A program as a whole: freeing it, finding things in it by name, and floats. */
#include "vm/program.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "qallow/graph.h"
#include "runtime/os.h"

void qv_program_destroy(struct qv_program *program)
{
    if (!program)
        return;
    for (size_t i = 0; i < program->page_count; i++) {
        qr_free(program->pages[i].initial);
        qr_free(program->pages[i].parents);
    }
    for (size_t i = 0; i < program->function_count; i++) {
        qr_free(program->functions[i].words);
        qr_free(program->functions[i].lines);
        qr_free(program->functions[i].labels);
        qr_free(program->functions[i].formals);
    }
    qr_free(program->pages);
    qr_free(program->functions);
    qr_free(program->names);
    qr_free(program);
}

int qv_find_function(const struct qv_program *program, const char *name)
{
    for (size_t i = 0; i < program->function_count; i++)
        if (strcmp(program->functions[i].name, name) == 0)
            return (int)i;
    return -1;
}

uint32_t qv_current_of(const struct qv_program *program, uint32_t function)
{
    const char *name = program->functions[function].name;
    size_t length = strcspn(name, "@");

    if (function < qv_current_count(program))
        return function;
    for (uint32_t i = 0; i < qv_current_count(program); i++)
        if (strncmp(program->functions[i].name, name, length) == 0 &&
            program->functions[i].name[length] == '\0')
            return i;
    return function; /* no such program is assembled */
}

int qv_find_page(const struct qv_program *program, const char *name)
{
    for (size_t i = 0; i < program->page_count; i++)
        if (strcmp(program->pages[i].name, name) == 0)
            return (int)i;
    return -1;
}

const char *qv_page_name(const struct qv_program *program, const struct qv_function *function,
                         uint64_t page)
{
    if (function->is_closed)
        return page < function->formal_count ? function->formals[page].name : "?";
    return page < program->page_count ? program->pages[page].name : "?";
}

uint64_t qv_node_windows(const struct qv_program *program, const struct qv_page *page)
{
    uint64_t bytes = 0, units = 0;

    for (size_t i = 0; i < page->parent_count; i++) {
        const struct qv_parent *parent = &page->parents[i];
        const struct qv_page *from = &program->pages[parent->page];
        if (parent->unit && !units)
            units = from->count / parent->unit + 1;
        if (parent->access == QALLOW_WINDOW)
            bytes += ((parent->before + units + parent->after) << qb_type_shift(from->type)) + 64;
    }
    return bytes;
}

uint64_t qv_program_memory(const struct qv_program *program)
{
    uint64_t stack = (uint64_t)program->stack * 8 + (uint64_t)program->depth * 16;
    uint64_t bytes = stack, nodes = 0;

    for (size_t i = 0; i < program->page_count; i++) {
        const struct qv_page *page = &program->pages[i];
        if (page->count > QV_MAX_COUNT) /* so that the sum cannot wrap */
            return UINT64_MAX;
        bytes += qv_page_bytes(page);
        for (size_t k = 0; k < page->parent_count; k++)
            if (page->parents[k].page >= i || page->parents[k].before > QV_MAX_COUNT ||
                page->parents[k].after > QV_MAX_COUNT)
                return UINT64_MAX;
        /* what it was, what it becomes, what it is made of */
        uint64_t node =
            page->is_derived ? 2 * qv_page_bytes(page) + qv_node_windows(program, page) : 0;
        nodes = node > nodes ? node : nodes;
    }
    for (size_t i = 0; i < program->page_count; i++) /* the graph has its own copy of them */
        bytes += nodes ? qv_page_bytes(&program->pages[i]) : 0;
    return nodes ? bytes + nodes + stack : bytes;
}

/* With the point of the C locale, whatever the program around us has set. 1 if all was read. */
int qv_read_float(const char *text, double *value)
{
    static locale_t c_locale;
    char *end = NULL;

    locale_t made = __atomic_load_n(&c_locale, __ATOMIC_ACQUIRE);
    if (!made) {
        locale_t expected = (locale_t)0;
        made = newlocale(LC_ALL_MASK, "C", (locale_t)0);
        if (!made)
            return 0;
        if (!__atomic_compare_exchange_n(&c_locale, &expected, made, 0, __ATOMIC_ACQ_REL,
                                         __ATOMIC_ACQUIRE)) {
            freelocale(made);
            made = expected;
        }
    }
    *value = strtod_l(text, &end, made);
    return end != text && *end == '\0';
}
