/* SPDX-License-Identifier: Apache-2.0 */
/* A program as a whole: freeing it, finding things in it by name, and floats. */
#include "vm/program.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/os.h"

void qv_program_destroy(struct qv_program *program)
{
    if (!program)
        return;
    for (size_t i = 0; i < program->page_count; i++)
        qr_free(program->pages[i].initial);
    for (size_t i = 0; i < program->function_count; i++) {
        qr_free(program->functions[i].words);
        qr_free(program->functions[i].lines);
        qr_free(program->functions[i].labels);
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

uint64_t qv_program_memory(const struct qv_program *program)
{
    uint64_t bytes = (uint64_t)program->stack * 8 + (uint64_t)program->depth * 16;

    for (size_t i = 0; i < program->page_count; i++) {
        if (program->pages[i].count > (uint64_t)1 << 44) /* so that the sum cannot wrap */
            return UINT64_MAX;
        bytes += qv_page_bytes(&program->pages[i]);
    }
    return bytes;
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
