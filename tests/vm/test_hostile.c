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

static uint64_t taken[4], refused[4];
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

/* Derived pages of all kinds, with some bytes changed. */
static void change_nodes(void)
{
    static const char text[] = ".page a u32 40\n"
                               ".input b u16 30\n"
                               ".data a 1 2 3\n"
                               ".node c u32 40 wide window a 2 1, whole b\n"
                               ".node d u64 10 block blockwise c 4\n"
                               ".node e u16 30 each elementwise b\n"
                               ".node f u64 1 all whole d, whole e, whole a\n"
                               ".fuel 2K 500\n"
                               ".func main\n"
                               "tick: ld.64 r1, f[r0]\n"
                               "st.32 r1, a[r0]\n"
                               "call r3, triple\n"
                               "commit\n"
                               "jmp tick\n"
                               ".func triple 1 pure\n"
                               "muli r0, r0, 3\n"
                               "ret\n"
                               ".func wide 2 of out u32, in u32, all u16\n"
                               "li r3, 4\n"
                               "window.add.u32 out, in, r3\n"
                               "st.32 r1, out[r9]\n"
                               "ret\n"
                               ".func block 1 of out u64, in u32\n"
                               "reduce.add.u32 r1, in\n"
                               "vmov.u64 out, out\n"
                               "call r0, triple\n"
                               "st.64 r0, out[r9]\n"
                               "ret\n"
                               ".func each of out u16, in u16\n"
                               "vadd.u16 out, in, in\n"
                               "ret\n"
                               ".func all of out u64, d u64, e u16, a u32\n"
                               "call r5, more\n"
                               "st.64 r5, out[r9]\n"
                               "ret\n"
                               ".func more of out u64, d u64, e u16, a u32\n"
                               "reduce.max.u64 r0, d\n"
                               "ld.u32 r1, a[r9 + 2]\n"
                               "add r0, r0, r1\n"
                               "ret\n";
    char *copy = malloc(sizeof text - 1);

    memcpy(copy, text, sizeof text - 1);
    change((uint8_t *)copy, sizeof text - 1);
    count(3, hostile_text(copy, sizeof text - 1));
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

enum { CHANGES = 100, HEADER = 72 }; /* of each state; bytes that say the most */

static void change_copy(const struct qv_program *program, const uint8_t *bytes, size_t length)
{
    size_t kept = below(8) ? length : below(length);
    uint8_t *copy = malloc(kept + 1); /* about exactly, as above */

    memcpy(copy, bytes, kept);
    change(copy, below(4) && kept > HEADER ? HEADER : kept);
    count(2, hostile_state(program, copy, kept));
    free(copy);
}

static void change_state(const struct qv_program *program)
{
    struct qv_machine *m = NULL;
    enum qv_stop stop = QV_TICK_DONE;

    if (qv_machine_create(program, &m) < 0)
        abort();
    for (int tick = 0; tick < 4 && stop == QV_TICK_DONE; tick++) {
        size_t length = qv_state_size(m);
        uint8_t *bytes = malloc(length);
        qv_state_encode(m, bytes);
        if (!hostile_state(program, bytes, length))
            abort();                                   /* a state as it is, is taken */
        for (int k = 0; k < (tick ? CHANGES : 1); k++) /* before the first there is little in it */
            change_copy(program, bytes, length);
        free(bytes);
        qv_tick_begin(m);
        stop = qv_run(m);
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
    static const char *const kinds[] = {"texts", "codes", "states", "derived pages"};
    int rc = 0;

    state = seed;
    printf("QALLOW_SEED=%llu\n", (unsigned long long)seed);
    for (uint64_t i = 0; i < programs; i++) {
        struct qv_program *program = generate_program(seed * 1000003 + i);
        for (int k = 0; k < 3; k++) {
            change_text(program);
            change_code(program);
            change_nodes();
        }
        qv_program_destroy(program);
    }
    for (uint64_t i = 0; i < programs * 10; i++) { /* few get to the end of a tick */
        struct qv_program *program = generate_program(seed * 1000003 + i);
        change_state(program);
        qv_program_destroy(program);
    }
    for (int kind = 0; kind < 4; kind++) {
        printf("%s: %llu taken, %llu refused\n", kinds[kind], (unsigned long long)taken[kind],
               (unsigned long long)refused[kind]);
        rc |= taken[kind] == 0 || refused[kind] == 0;
    }
    return rc;
}
