/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A libFuzzer target: any words as the code of four functions, in a program with some pages, two of
 * them derived, by elements and by windows of those; and, as far as the last bytes go, as the state
 * of its machine. One function computes both derived pages, another one is pure.
 *
 *     words of the state 1   words of main, f and g, less 1 each 3   words 8 each
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hostile.h"
#include "qallow/graph.h"

enum { FUNCTIONS = 4, HEAD = FUNCTIONS };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The last one gets what is left. */
static void share_out(struct qv_function functions[FUNCTIONS], const uint8_t *lengths,
                      uint64_t *code, size_t words)
{
    for (size_t i = 0; i < FUNCTIONS; i++) {
        size_t most = words - (FUNCTIONS - 1 - i); /* each has one */
        functions[i].words = code;
        functions[i].word_count = i + 1 < FUNCTIONS ? 1 + lengths[i] % most : most;
        code += functions[i].word_count;
        words -= functions[i].word_count;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct qv_parent e_parents[2] = {{.page = 2, .access = QALLOW_ELEMENTWISE, .unit = 1},
                                     {.page = 3}};
    struct qv_parent g_parents[2] = {
        {.page = 4, .access = QALLOW_WINDOW, .unit = 1, .before = 1, .after = 2},
        {.page = 3, .access = QALLOW_BLOCKWISE, .unit = 2}};
    struct qv_page pages[6] = {
        {.name = "a", .type = QB_U8, .count = 200},
        {.name = "b", .type = QB_F32, .count = 50},
        {.name = "c", .type = QB_I64, .count = 25},
        {.name = "d", .type = QB_U32, .count = 50, .is_input = 1},
        {.name = "e", .type = QB_I64, .count = 25, .is_derived = 1, .function = 2},
        {.name = "g", .type = QB_I64, .count = 25, .is_derived = 1, .function = 2}};
    struct qv_formal formals[3] = {{"out", QB_I64}, {"one", QB_I64}, {"two", QB_U32}};
    struct qv_function functions[FUNCTIONS] = {
        {.name = "main", .registers = 12},
        {.name = "f", .registers = 8, .arguments = 2},
        {.name = "compute", .registers = 8, .arguments = 2, .is_closed = 1},
        {.name = "pure", .registers = 8, .arguments = 1, .is_closed = 1}};
    struct qv_name names[2] = {{"first"}, {"second"}};
    struct qv_program program = {.memory = 1 << 22,
                                 .fuel = 2000,
                                 .stack = 300,
                                 .depth = 5,
                                 .pages = pages,
                                 .page_count = 6,
                                 .functions = functions,
                                 .function_count = FUNCTIONS,
                                 .names = names,
                                 .name_count = 2};
    if (size < HEAD + 8 * (FUNCTIONS + 1))
        return 0;
    pages[4].parents = e_parents;
    pages[5].parents = g_parents;
    pages[4].parent_count = pages[5].parent_count = 2;
    functions[2].formals = formals;
    functions[2].formal_count = 3;
    size_t words = (size - HEAD) / 8, state_words = data[0] % (words - FUNCTIONS + 1);
    uint64_t *code = malloc(words * 8);
    memcpy(code, data + HEAD, words * 8);
    words -= state_words;
    share_out(functions, data + 1, code, words);
    if (hostile_program(&program))
        hostile_state(&program, (const uint8_t *)(code + words), state_words * 8);
    free(code);
    return 0;
}
