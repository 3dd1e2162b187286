/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A libFuzzer target: any words as the code of two functions, in a program with some pages; and, as
 * far as the last bytes go, as the state of its machine.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hostile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct qv_page pages[4] = {{.name = "a", .type = QB_U8, .count = 200},
                               {.name = "b", .type = QB_F32, .count = 50},
                               {.name = "c", .type = QB_I64, .count = 25},
                               {.name = "d", .type = QB_U32, .count = 50, .is_input = 1}};
    struct qv_function functions[2] = {{.name = "main", .registers = 12},
                                       {.name = "f", .registers = 8, .arguments = 2}};
    struct qv_name names[2] = {{"first"}, {"second"}};
    struct qv_program program = {.memory = 1 << 22,
                                 .fuel = 2000,
                                 .stack = 300,
                                 .depth = 5,
                                 .pages = pages,
                                 .page_count = 4,
                                 .functions = functions,
                                 .function_count = 2,
                                 .names = names,
                                 .name_count = 2};
    if (size < 18)
        return 0;
    size_t words = (size - 2) / 8, state_words = data[0] % (words - 1);
    uint64_t *code = malloc(words * 8);
    memcpy(code, data + 2, words * 8);
    words -= state_words;
    functions[0].words = code;
    functions[0].word_count = 1 + data[1] % (words > 1 ? words - 1 : 1);
    functions[1].words = code + functions[0].word_count;
    functions[1].word_count = words - functions[0].word_count;
    if (words > 1 && hostile_program(&program))
        hostile_state(&program, (const uint8_t *)(code + words), state_words * 8);
    free(code);
    return 0;
}
