/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine: vector instructions beside the loop that a C compiler makes, the interpreter beside
 * the same loop in C, and ticks of a program of 1,000 derived pages, with a log and without.
 *
 * `size` is bytes of a page for vectors, and derived pages that a change reaches for ticks.
 */
#include <stdio.h>
#include <string.h>

#include "bench/case.h"
#include "runtime/os.h"
#include "vm/session.h"

enum { NODES = 1000, TEXT = 1 << 17, VECTORS = 64, ROUNDS = 100000 };

struct vm {
    struct qv_session *session, *silent; /* with a log, if the case has one; without */
    float *a, *b, *out;
    size_t count;
};

static int make(struct qm_context *context, const char *text, size_t length, const char *log,
                struct qv_session **session)
{
    struct qallow_options store = QALLOW_OPTIONS_INIT;
    struct qv_session_options options = {
        .log = log ? qm_path(context, log) : NULL, .threads = 1, .has_no_log = !log};

    store.sync = QALLOW_SYNC_NONE;
    options.store = store;
    return qv_session_create(text, length, context->what->name, &options, session);
}

static void finish(struct qm_context *context)
{
    struct vm *vm = context->state;

    if (!vm)
        return;
    qv_session_close(vm->session);
    qv_session_close(vm->silent);
    qr_free(vm->a);
    qr_free(vm->b);
    qr_free(vm->out);
    qr_free(vm);
}

static struct vm *begin(struct qm_context *context)
{
    return context->state = qr_calloc(1, sizeof(struct vm));
}

static int run_ticks(struct qv_session *session, uint64_t repeats, double operations,
                     struct qm_sample *sample)
{
    enum qv_stop stop;
    int rc = 0;
    double start = qm_now();

    for (uint64_t i = 0; rc == 0 && i < repeats; i++)
        rc = qv_session_tick(session, &stop, NULL);
    *sample = (struct qm_sample){qm_now() - start, (double)repeats * operations};
    return rc;
}

static int run_silent(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    return run_ticks(((struct vm *)context->state)->silent, repeats, 1, sample);
}

static int run_logged(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    return run_ticks(((struct vm *)context->state)->session, repeats, 1, sample);
}

/* --- 1,000 derived pages --- */

/* Chains of `reached` pages, each from the one before; the first from the page that changes. */
static int say_nodes(char *text, unsigned reached)
{
    int n = snprintf(text, TEXT, ".memory 32M\n.page a u64 1\n.page rest u64 1\n");

    for (unsigned i = 0; i < NODES; i++) {
        n += snprintf(text + n, (size_t)(TEXT - n), ".node n%u u64 1 step elementwise ", i);
        if (i % reached)
            n += snprintf(text + n, (size_t)(TEXT - n), "n%u\n", i - 1);
        else
            n += snprintf(text + n, (size_t)(TEXT - n), "%s\n", i ? "rest" : "a");
    }
    n += snprintf(text + n, (size_t)(TEXT - n),
                  ".func main\ntick:\naddi r1, r1, 1\nst.64 r1, a[r0]\ncommit\njmp tick\n"
                  ".func step of out u64, in u64\nld.64 r0, in[r1]\naddi r0, r0, 1\n"
                  "st.64 r0, out[r1]\nret\n");
    return n;
}

static int setup_ticks(struct qm_context *context, const char *log)
{
    struct vm *vm = begin(context);
    char *text = qr_malloc(TEXT);
    int rc = vm && text ? 0 : qm_no_memory();
    int length = rc < 0 ? 0 : say_nodes(text, (unsigned)context->size);

    if (rc == 0)
        rc = make(context, text, (size_t)length, NULL, &vm->silent);
    if (rc == 0 && log)
        rc = make(context, text, (size_t)length, log, &vm->session);
    qr_free(text);
    return rc;
}
static int setup_silent(struct qm_context *context) { return setup_ticks(context, NULL); }
static int setup_logged(struct qm_context *context) { return setup_ticks(context, "vm.tlog"); }

/* --- vectors --- */

static int setup_vectors(struct qm_context *context)
{
    struct vm *vm = begin(context);
    char text[2000];
    int n;

    if (!vm)
        return qm_no_memory();
    vm->count = context->size / sizeof *vm->a;
    vm->a = qr_calloc(vm->count, sizeof *vm->a);
    vm->b = qr_calloc(vm->count, sizeof *vm->b);
    vm->out = qr_calloc(vm->count, sizeof *vm->out);
    if (!vm->a || !vm->b || !vm->out)
        return qm_no_memory();
    n = snprintf(text, sizeof text,
                 ".page a f32 %zu\n.page b f32 %zu\n.page out f32 %zu\n.func main\ntick:\n"
                 "li r0, %d\nnext:\nvadd.f32 out, a, b\naddi r0, r0, -1\njgti r0, 0, next\n"
                 "commit\njmp tick\n",
                 vm->count, vm->count, vm->count, VECTORS);
    return make(context, text, (size_t)n, NULL, &vm->silent);
}

static int run_vectors(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    const struct vm *vm = context->state;
    return run_ticks(vm->silent, repeats, (double)context->size * VECTORS, sample);
}

/* As a program in C would have it. */
static int run_c_vectors(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    const struct vm *vm = context->state;
    double start = qm_now();

    for (uint64_t i = 0; i < repeats * VECTORS; i++) {
        float *restrict out = vm->out;
        const float *restrict a = vm->a, *restrict b = vm->b;
        for (size_t k = 0; k < vm->count; k++)
            out[k] = a[k] + b[k];
        qm_keep(out);
    }
    *sample =
        (struct qm_sample){qm_now() - start, (double)repeats * (double)context->size * VECTORS};
    return 0;
}

/* --- the interpreter --- */

static int setup_loop(struct qm_context *context)
{
    static const char text[] = ".func main\ntick:\nli r0, 0\nli r1, 1\nlc r2, 100000\nnext:\n"
                               "shli r3, r1, 13\nxor r1, r1, r3\nshri r3, r1, 7\n"
                               "xor r1, r1, r3\nshli r3, r1, 17\nxor r1, r1, r3\n"
                               "addi r0, r0, 1\njlt r0, r2, next\nemit x, r1\ncommit\njmp tick\n";
    struct vm *vm = begin(context);

    return vm ? make(context, text, sizeof text - 1, NULL, &vm->silent) : qm_no_memory();
}

enum { INSTRUCTIONS = 8 }; /* of a round */

static int run_loop(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    const struct vm *vm = context->state;
    return run_ticks(vm->silent, repeats, (double)ROUNDS * INSTRUCTIONS, sample);
}

static int run_c_loop(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    double start = qm_now();

    for (uint64_t i = 0; i < repeats; i++) {
        uint64_t x = 1;
        for (uint64_t n = 0; n < ROUNDS; n++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
        }
        qm_keep(&x);
    }
    *sample = (struct qm_sample){qm_now() - start, (double)repeats * ROUNDS * INSTRUCTIONS};
    return 0;
}

static const struct qm_work silent = {setup_silent, run_silent, NULL, finish};
static const struct qm_work logged = {setup_logged, run_logged, run_silent, finish};
static const struct qm_work vectors = {setup_vectors, run_vectors, run_c_vectors, finish};
static const struct qm_work loop = {setup_loop, run_loop, run_c_loop, finish};

/* clang-format off */
const struct qm_case qm_vm_cases[] = {
    {"vm/tick-all", "vm: a tick that reaches all of 1,000", NULL,
     "A program with 1,000 derived pages of 8 bytes, each from the one before; each tick changes "
     "the first, and with it all of them.",
     &qm_us, {QM_FIGURE, 100}, &silent, .size = NODES},
    {"vm/tick-ten", "vm: a tick that reaches 10 of 1,000", NULL,
     "The same with 100 chains of 10 pages, of which a tick reaches one.",
     &qm_us, {QM_FIGURE, 100}, &silent, .size = 10},
    {"vm/log-all", "vm: the same 1,000, logged", "not logged",
     "The tick that reaches all of them, with a log that is not synced, beside it without a log.",
     &qm_us, {QM_RATIO, 1.3}, &logged, .size = NODES},
    {"vm/log-ten", "vm: the same 10 of 1,000, logged", "not logged",
     "The tick that reaches 10 of 1,000, with a log that is not synced, beside it without a log.",
     &qm_us, {QM_RATIO, 1.3}, &logged, .size = 10},
    {"vm/add-l2", "vm: vadd.f32 of 128 KiB", "C loop",
     "The sum of two pages of 128 KiB, beside the loop as this build's compiler has it.",
     &qm_gb_s, {QM_RATIO, 0.7}, &vectors, .size = 128 << 10},
    {"vm/add-4k", "vm: vadd.f32 of 4 KiB", "C loop",
     "The same with pages of 4 KiB.",
     &qm_gb_s, {QM_RATIO, 0.35}, &vectors, .size = 4 << 10},
    {"vm/scalar", "vm: one scalar instruction", "C loop",
     "A loop of 8 instructions that a generator of random numbers is made of, beside it in C.",
     &qm_ns, {QM_NOTHING, 0}, &loop, .size = 8},
    {0},
};
