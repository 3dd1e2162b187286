/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs that were right, and then some bits of their text, code or state were changed. Some
 * changes are harmless and must be taken, so that the test is known to reach what it tests.
 * QALLOW_VM_PROGRAMS and QALLOW_SEED as in differential.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "generate.h"
#include "hostile.h"
#include "tests/random.h"
#include "vm/state.h"

static uint64_t state;
static uint64_t below(uint64_t n) { return next_random(&state) % n; }

static uint64_t taken[3], refused[3];
static void count(int kind, int was_taken)
{
    if (was_taken)
        taken[kind]++;
    else
        refused[kind]++;
}

static void change(uint8_t *bytes, size_t length)
{
    static const uint8_t likely[] = {0, 1, 0x7f, 0x80, 0xff, ' ', '\n', '.', ',', 'r', '9'};
    for (uint64_t i = 1 + below(3); i > 0 && length > 0; i--) {
        uint8_t *at = &bytes[below(length)];
        if (below(2))
            *at ^= (uint8_t)(1u << below(8));
        else
            *at = likely[below(sizeof likely)];
    }
}

struct text {
    char at[1 << 17];
    size_t length;
};
static int collect(void *context, const char *bytes, size_t length)
{
    struct text *t = context;
    if (t->length + length > sizeof t->at)
        return 1;
    memcpy(t->at + t->length, bytes, length);
    t->length += length;
    return 0;
}

static void change_text(const struct qv_program *program)
{
    static struct text text;

    text.length = 0;
    if (qv_disassemble(program, collect, &text) != 0)
        return;
    char *copy = malloc(text.length); /* exactly, so that a sanitizer sees what is read behind it */
    memcpy(copy, text.at, text.length);
    change((uint8_t *)copy, text.length);
    count(0, hostile_text(copy, below(8) ? text.length : below(text.length)));
    free(copy);
}

static void change_code(struct qv_program *program)
{
    struct qv_function *f = &program->functions[below(program->function_count)];
    size_t length = f->word_count * 8;
    uint8_t *original = malloc(length);

    memcpy(original, f->words, length);
    change((uint8_t *)f->words, length);
    count(1, hostile_program(program));
    memcpy(f->words, original, length);
    free(original);
}

static void change_state(const struct qv_program *program)
{
    struct qv_machine *m = NULL;

    if (qv_machine_create(program, &m) < 0)
        abort();
    qv_tick_begin(m);
    for (int i = 0; i < 3 && qv_run(m) == QV_TICK_DONE; i++) {
        size_t length = qv_state_size(m);
        uint8_t *bytes = malloc(length);
        qv_state_encode(m, bytes);
        if (!hostile_state(program, bytes, length))
            abort(); /* a state as it is, is taken */
        count(2, 1);
        change(bytes, below(4) ? 72 : length);
        count(2, hostile_state(program, bytes, below(8) ? length : below(length)));
        free(bytes);
        qv_tick_begin(m);
    }
    qv_machine_destroy(m);
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 0) : otherwise;
}

int main(void)
{
    uint64_t programs = number_of("QALLOW_VM_PROGRAMS", 200), seed = number_of("QALLOW_SEED", 1);
    static const char *const kinds[] = {"texts", "codes", "states"};
    int rc = 0;

    state = seed;
    printf("QALLOW_SEED=%llu\n", (unsigned long long)seed);
    for (uint64_t i = 0; i < programs; i++) {
        struct qv_program *program = generate_program(seed * 1000003 + i);
        for (int k = 0; k < 3; k++) {
            change_text(program);
            change_code(program);
        }
        change_state(program);
        qv_program_destroy(program);
    }
    for (int kind = 0; kind < 3; kind++) {
        printf("%s: %llu taken, %llu refused\n", kinds[kind], (unsigned long long)taken[kind],
               (unsigned long long)refused[kind]);
        rc |= taken[kind] == 0 || refused[kind] == 0;
    }
    return rc;
}
