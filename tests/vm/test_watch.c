/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qallow/vm.h: whoever watches changes nothing; each event comes once, also if the machine is
 * stopped there; calls are counted as they are told of; and what cannot be done says so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "qallow/vm.h"

#include <cmocka.h>

enum { EVERYTHING = QALLOW_VM_ON_TICK_DONE * 2 - 1, MOST = 4096 };

static const char program[] = ".page results u64 16\n"
                              ".func main\n"
                              "    li   r1, 0\n"
                              "next:\n"
                              "    mov  r2, r1\n"
                              "    call r2, fib\n"
                              "    st.64 r2, results[r1]\n"
                              "    emit fib, r2\n"
                              "    commit\n"
                              "    addi r1, r1, 1\n"
                              "    jlti r1, 8, next\n"
                              "    call r2, deep\n"
                              "    halt\n"
                              ".func fib 1\n"
                              "    jlti r0, 2, small\n"
                              "    addi r1, r0, -1\n"
                              "    call r1, fib\n"
                              "    addi r2, r0, -2\n"
                              "    call r2, fib\n"
                              "    add  r0, r1, r2\n"
                              "small:\n"
                              "    ret\n"
                              ".func deep\n"
                              "    commit\n"
                              "    vramp.u64 results, r0, r0\n"
                              "    ret\n";

struct seen {
    struct {
        uint32_t what;
        char function[16], text[40];
        uint64_t tick, depth, fuel;
        uint32_t word;
    } events[MOST];
    size_t count, stop_at; /* at this event it stops the machine, once */
};

static int note(void *context, const struct qallow_vm_event *event)
{
    struct seen *seen = context;

    assert_int_equal(event->size, sizeof *event);
    assert_true(seen->count < MOST);
    memset(&seen->events[seen->count], 0, sizeof *seen->events);
    seen->events[seen->count].what = event->what;
    seen->events[seen->count].tick = event->tick;
    seen->events[seen->count].depth = event->depth;
    seen->events[seen->count].fuel = event->fuel;
    seen->events[seen->count].word = event->word;
    snprintf(seen->events[seen->count].function, 16, "%s", event->function);
    assert_int_equal(qallow_vm_event_text(event, seen->events[seen->count].text, 40), 0);
    return seen->count++ == seen->stop_at;
}

static struct qallow_vm *make(const char *text, const struct qallow_vm_options *options)
{
    struct qallow_vm *vm = NULL;
    assert_int_equal(qallow_vm_create(text, strlen(text), "test.qvm", options, &vm), 0);
    return vm;
}

static void watch(struct qallow_vm *vm, uint32_t what, uint32_t counts, struct seen *seen)
{
    struct qallow_vm_watch watch = QALLOW_VM_WATCH_INIT;
    watch.what = what;
    watch.counts = counts;
    watch.tell = note;
    watch.context = seen;
    assert_int_equal(qallow_vm_watch(vm, &watch), 0);
}

/* What all watched runs must come to. */
struct outcome {
    uint64_t pages[16], fuel, ticks, emitted, stops;
};

static struct outcome run(struct qallow_vm *vm)
{
    struct qallow_vm_turn turn = QALLOW_VM_TURN_INIT;
    struct qallow_vm_value value = QALLOW_VM_VALUE_INIT;
    struct outcome outcome = {.ticks = 0};
    const void *bytes;
    uint64_t size;

    while (turn.status != QALLOW_VM_HALTED) {
        assert_int_equal(qallow_vm_tick(vm, &turn), 0);
        outcome.stops += turn.status == QALLOW_VM_STOPPED;
        for (uint64_t i = 0; turn.status != QALLOW_VM_STOPPED && !qallow_vm_emitted(vm, i, &value);
             i++) {
            assert_string_equal(value.name, "fib");
            assert_int_equal(value.kind, QALLOW_VM_SIGNED);
            outcome.emitted = outcome.emitted * 31 + value.bits;
        }
    }
    outcome.ticks = turn.tick;
    outcome.fuel = turn.fuel;
    assert_int_equal(qallow_vm_page(vm, "results", &bytes, &size), 0);
    assert_int_equal(size, sizeof outcome.pages);
    memcpy(outcome.pages, bytes, size);
    return outcome;
}

static void watching_changes_nothing(void **state)
{
    static struct seen all, some;
    struct qallow_vm *vm = make(program, NULL);
    struct outcome wanted = run(vm);

    (void)state;
    assert_int_equal(wanted.ticks, 10);
    qallow_vm_close(vm);
    all.count = 0;
    all.stop_at = MOST;
    for (uint32_t what = EVERYTHING + 1; what-- > 0;) {
        struct seen *seen = what == EVERYTHING ? &all : &some;
        seen->count = 0;
        seen->stop_at = MOST;
        vm = make(program, NULL);
        watch(vm, what, what & 1, seen);
        struct outcome outcome = run(vm);
        assert_memory_equal(&outcome, &wanted, sizeof wanted);
        qallow_vm_close(vm);
        /* the events are those of all that were asked for, in the same order */
        size_t at = 0;
        for (size_t i = 0; i < all.count; i++)
            if (all.events[i].what & what) {
                assert_true(at < seen->count);
                assert_memory_equal(&seen->events[at], &all.events[i], sizeof *all.events);
                at++;
            }
        assert_int_equal(at, seen->count);
    }
}

static void each_event_comes_once(void **state)
{
    static struct seen all, stopped;
    struct qallow_vm *vm = make(program, NULL);

    (void)state;
    all.count = 0;
    all.stop_at = MOST;
    watch(vm, EVERYTHING, 0, &all);
    struct outcome wanted = run(vm);
    qallow_vm_close(vm);
    for (size_t at = 0; at < all.count; at += 1 + at / 16) {
        vm = make(program, NULL);
        stopped.count = 0;
        stopped.stop_at = at;
        watch(vm, EVERYTHING, 0, &stopped);
        struct outcome outcome = run(vm);
        assert_int_equal(outcome.stops, all.events[at].what != QALLOW_VM_ON_TICK_DONE);
        outcome.stops = 0;
        assert_memory_equal(&outcome, &wanted, sizeof wanted);
        assert_int_equal(stopped.count, all.count);
        assert_memory_equal(stopped.events, all.events, all.count * sizeof *all.events);
        qallow_vm_close(vm);
    }
}

static uint64_t calls_of(struct qallow_vm *vm, const char *name)
{
    struct qallow_vm_function function = QALLOW_VM_FUNCTION_INIT;
    uint64_t index = 0;

    while (qallow_vm_function(vm, index, &function) == 0 && strcmp(function.name, name) != 0)
        index++;
    assert_string_equal(function.name, name);
    return function.calls;
}

static void calls_are_counted(void **state)
{
    static struct seen seen;
    static const char *const names[] = {"main", "fib", "deep"};

    (void)state;
    for (uint32_t what = 0; what <= EVERYTHING; what += EVERYTHING) {
        struct qallow_vm *vm = make(program, NULL);
        uint64_t calls[3] = {0, 0, 0}, returns = 0;
        seen.count = 0;
        seen.stop_at = MOST;
        watch(vm, what, 1, &seen);
        run(vm);
        for (size_t i = 0; i < seen.count; i++) {
            returns += seen.events[i].what == QALLOW_VM_ON_RETURN;
            for (size_t n = 0; n < 3; n++)
                calls[n] += seen.events[i].what == QALLOW_VM_ON_CALL &&
                            strcmp(seen.events[i].function, names[n]) == 0;
        }
        /* fib(n) calls itself 2 * fib(n + 1) - 2 times, and is called once */
        uint64_t fib = 0;
        for (uint64_t n = 0, a = 0, b = 1; n < 8; n++) {
            uint64_t next = a + b;
            fib += 2 * b - 1;
            a = b;
            b = next;
        }
        assert_int_equal(calls_of(vm, "fib"), fib);
        assert_int_equal(calls_of(vm, "deep"), 1);
        assert_int_equal(calls_of(vm, "main"), 0);
        if (what) {
            assert_int_equal(calls[1], fib);
            assert_int_equal(calls[2], 1);
            assert_int_equal(returns, fib + 1);
        }
        assert_int_equal(qallow_vm_watch(vm, NULL), 0);
        assert_int_equal(calls_of(vm, "fib"), 0);
        qallow_vm_close(vm);
    }
}

static void counts_survive_a_patch(void **state)
{
    static const char other[] = ".func fib 1\n ret\n.page results u64 16\n"
                                ".func main\n commit\n halt\n.func deep\n ret\n";
    static struct seen seen;
    struct qallow_vm_patch patch = QALLOW_VM_PATCH_INIT;
    struct qallow_vm_turn turn = QALLOW_VM_TURN_INIT;
    struct qallow_vm *vm = make(program, NULL);

    (void)state;
    seen.count = 0;
    seen.stop_at = 20; /* in the middle of the third tick */
    watch(vm, QALLOW_VM_ON_INSTRUCTION, 1, &seen);
    while (turn.status != QALLOW_VM_STOPPED)
        assert_int_equal(qallow_vm_tick(vm, &turn), 0);
    assert_int_equal(qallow_vm_patch(vm, other, strlen(other), "other", &patch), QALLOW_E_STATE);
    assert_int_equal(qallow_vm_tick(vm, &turn), 0);
    uint64_t before = calls_of(vm, "fib");
    assert_true(before > 0);
    assert_int_equal(qallow_vm_patch(vm, ".func main\n", 11, "other", &patch), QALLOW_E_ARGUMENT);
    assert_int_equal(qallow_vm_patch(vm, other, strlen(other), "other", &patch), 0);
    assert_int_equal(patch.world, 1);
    assert_int_equal(patch.defined, 3);
    assert_int_equal(patch.kept, 1); /* main */
    assert_int_equal(patch.epoch, 0);
    assert_int_equal(calls_of(vm, "fib"), before);
    assert_int_equal(calls_of(vm, "main@0"), 0);
    struct outcome outcome = run(vm); /* the new fib gives its argument */
    for (uint64_t n = turn.tick; n < 8; n++)
        assert_int_equal(outcome.pages[n], n);
    assert_int_equal(calls_of(vm, "fib"), before + 8 - turn.tick);
    qallow_vm_close(vm);
}

/* --- derived pages --- */

/* a -> twice_a -> sum; b -> thrice_b -> largest; both of a are made by a function that calls
 * `factor`, and `factor` calls `base`. */
static const char derived[] = ".page a u64 4\n"
                              ".page b u64 4\n"
                              ".node twice u64 4 scale elementwise a\n"
                              ".node plus u64 4 shift elementwise b\n"
                              ".node sum u64 1 add whole twice\n"
                              ".node most u64 1 max whole plus\n"
                              ".func main\n"
                              "    tick r1\n"
                              "    st.64 r1, a[r0]\n"
                              "    st.64 r1, b[r1]\n"
                              "    commit\n"
                              "    jlti r1, 3, main_again\n"
                              "main_again:\n"
                              "    st.64 r0, b[r0]\n"
                              "    commit\n"
                              "    jmp main_again\n"
                              ".func scale of out u64, in u64\n"
                              "    call r1, factor\n"
                              "    vmul.u64 out, in, r1\n"
                              "    ret\n"
                              ".func shift of out u64, in u64\n"
                              "    li r1, 5\n"
                              "    vadd.u64 out, in, r1\n"
                              "    ret\n"
                              ".func add of out u64, in u64\n"
                              "    reduce.add.u64 r1, in\n"
                              "    st.64 r1, out[r0]\n"
                              "    ret\n"
                              ".func max of out u64, in u64\n"
                              "    reduce.max.u64 r1, in\n"
                              "    st.64 r1, out[r0]\n"
                              "    ret\n"
                              ".func factor pure\n"
                              "    call r1, base\n"
                              "    addi r0, r1, 1\n"
                              "    ret\n"
                              ".func base pure\n"
                              "    li r0, 1\n"
                              "    ret\n";

struct computed {
    char pages[64][8];
    uint64_t ticks[64];
    size_t count, done;
};

static int note_page(void *context, const struct qallow_vm_event *event)
{
    struct computed *computed = context;

    assert_non_null(event->page);
    if (event->what == QALLOW_VM_ON_NODE) {
        assert_true(computed->count < 64);
        computed->ticks[computed->count] = event->tick;
        snprintf(computed->pages[computed->count++], 8, "%s", event->page);
    } else {
        assert_string_equal(computed->pages[computed->done++], event->page);
        assert_int_equal(computed->done, computed->count);
    }
    return 1; /* cannot stop it */
}

static void computed_is(struct computed *computed, uint64_t tick, const char *pages)
{
    char text[256] = "";

    for (size_t i = 0; i < computed->count; i++) {
        assert_int_equal(computed->ticks[i], tick);
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s ", computed->pages[i]);
    }
    assert_string_equal(text, pages);
    assert_int_equal(computed->done, computed->count);
    computed->count = computed->done = 0;
}

static uint64_t first_of(struct qallow_vm *vm, const char *page)
{
    const void *bytes;
    uint64_t size, number;

    assert_int_equal(qallow_vm_page(vm, page, &bytes, &size), 0);
    assert_true(size >= sizeof number);
    memcpy(&number, bytes, sizeof number);
    return number;
}

static void give(struct qallow_vm *vm, const char *old, const char *new_, uint32_t stale,
                 uint64_t computed)
{
    static char text[2 * sizeof derived];
    struct qallow_vm_patch patch = QALLOW_VM_PATCH_INIT;
    const char *at = strstr(derived, old);

    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - derived), derived, new_, at + strlen(old));
    assert_int_equal(qallow_vm_patch(vm, text, strlen(text), "patch", &patch), 0);
    assert_int_equal(patch.stale, stale);
    assert_int_equal(patch.computed, computed);
}

static void a_patch_computes_what_is_stale(void **state)
{
    struct qallow_vm_function function = QALLOW_VM_FUNCTION_INIT;
    struct qallow_vm_watch watch = QALLOW_VM_WATCH_INIT;
    struct computed computed = {.count = 0};
    struct qallow_vm *vm = make(derived, NULL);

    (void)state;
    watch.what = QALLOW_VM_ON_NODE | QALLOW_VM_ON_NODE_DONE;
    watch.counts = 1;
    watch.tell = note_page;
    watch.context = &computed;
    assert_int_equal(qallow_vm_watch(vm, &watch), 0);
    assert_int_equal(qallow_vm_tick(vm, NULL), 0);
    computed_is(&computed, 1, "twice plus sum most ");
    assert_int_equal(first_of(vm, "twice"), 2);
    assert_int_equal(first_of(vm, "sum"), 2);

    /* base is two calls away from scale: factor, scale and twice are stale, and sum follows */
    give(vm, "li r0, 1", "li r0, 2", 2, 2);
    computed_is(&computed, 1, "twice sum ");
    assert_int_equal(first_of(vm, "sum"), 3);
    assert_int_equal(first_of(vm, "most"), 6);
    /* the same result goes no further */
    give(vm, "li r0, 1", "li r0, 2\n nop", 2, 1);
    computed_is(&computed, 1, "twice ");
    /* a function that computes; nobody calls it */
    give(vm, "reduce.max", "reduce.min", 2, 3); /* base is 1 again, too */
    computed_is(&computed, 1, "twice sum most ");
    assert_int_equal(first_of(vm, "most"), 5);
    /* main alone: nothing is computed, but what the tick changes */
    give(vm, "commit\n    jmp", "commit\n nop\n    jmp", 0, 1);
    computed_is(&computed, 1, "most ");
    assert_int_equal(qallow_vm_tick(vm, NULL), 0);
    computed_is(&computed, 2, "");

    for (uint64_t i = 0; qallow_vm_function(vm, i, &function) == 0; i++)
        assert_int_equal(function.computed, strcmp(function.name, "scale") == 0   ? 4
                                            : strcmp(function.name, "shift") == 0 ? 1
                                            : strcmp(function.name, "add") == 0   ? 3
                                            : strcmp(function.name, "max") == 0   ? 3
                                                                                  : 0);
    qallow_vm_close(vm);
}

static int never(void *context, const struct qallow_vm_event *event)
{
    (void)context, (void)event;
    return 0;
}

static void what_cannot_be_done(void **state)
{
    struct qallow_vm_watch wrong = QALLOW_VM_WATCH_INIT;
    struct qallow_vm_options options = QALLOW_VM_OPTIONS_INIT;
    struct qallow_vm_value value = QALLOW_VM_VALUE_INIT;
    struct qallow_vm_function function = QALLOW_VM_FUNCTION_INIT;
    struct qallow_vm_input input = {"data", "/dev/null"};
    struct qallow_vm *vm = NULL;
    const void *bytes;
    uint64_t size;

    (void)state;
    assert_int_equal(qallow_vm_create("nonsense", 8, "x", NULL, &vm), QALLOW_E_ARGUMENT);
    assert_non_null(strstr(qallow_error_detail(), "x:1:1"));
    options.inputs = &input;
    options.input_count = 1;
    assert_int_equal(qallow_vm_create(program, strlen(program), "x", &options, &vm),
                     QALLOW_E_ARGUMENT);
    assert_null(vm);
    assert_int_equal(qallow_vm_resume("/nowhere/x.tlog", 0, NULL, &vm), QALLOW_E_NO_INPUT);
    assert_int_equal(qallow_vm_close(NULL), 0);
    assert_null(qallow_vm_store(NULL));

    vm = make(".func main\n commit\n trap 7\n", NULL);
    wrong.what = QALLOW_VM_ON_TICK;
    assert_int_equal(qallow_vm_watch(vm, &wrong), QALLOW_E_ARGUMENT);
    wrong.tell = never;
    wrong.what = EVERYTHING + 1;
    assert_int_equal(qallow_vm_watch(vm, &wrong), QALLOW_E_ARGUMENT);
    assert_int_equal(qallow_vm_page(vm, "none", &bytes, &size), QALLOW_E_PAGE_NOT_FOUND);
    assert_int_equal(qallow_vm_emitted(vm, 0, &value), QALLOW_E_LIMIT);
    assert_int_equal(qallow_vm_function(vm, 1, &function), QALLOW_E_LIMIT);
    assert_null(qallow_vm_store(vm));
    assert_int_equal(qallow_vm_tick(vm, NULL), 0);
    assert_int_equal(qallow_vm_tick(vm, NULL), QALLOW_E_STATE);
    assert_non_null(strstr(qallow_error_detail(), "trap 7"));
    assert_int_equal(qallow_vm_tick(vm, NULL), QALLOW_E_STATE);
    assert_int_equal(qallow_vm_patch(vm, program, strlen(program), "x", NULL), QALLOW_E_STATE);
    qallow_vm_close(vm);

    options = (struct qallow_vm_options)QALLOW_VM_OPTIONS_INIT;
    options.max_memory = 1 << 16; /* the stack alone is larger */
    assert_int_equal(qallow_vm_create(program, strlen(program), "x", &options, &vm),
                     QALLOW_E_LIMIT);
    options.max_memory = 1 << 20;
    options.fuel = 10;
    vm = make(".func main\nagain: jmp again\n", &options);
    assert_int_equal(qallow_vm_tick(vm, NULL), QALLOW_E_LIMIT);
    qallow_vm_close(vm);
    vm = make(".func main\n halt\n", NULL);
    assert_int_equal(qallow_vm_tick(vm, NULL), 0);
    assert_int_equal(qallow_vm_tick(vm, NULL), QALLOW_E_STATE);
    assert_int_equal(qallow_vm_patch(vm, ".func main\n halt\n", 17, "x", NULL), 0);
    qallow_vm_close(vm);
}

/* With a log: what was recorded is there for others, and a machine is made of it again. */
static void with_a_log(void **state)
{
    char directory[] = "/tmp/qallow-vm-XXXXXX", log[64], branch[64], name[96];
    static const char *const endings[] = {"", "-index", ".lock"};
    struct qallow_vm_options options = QALLOW_VM_OPTIONS_INIT;
    struct qallow_options store = QALLOW_OPTIONS_INIT;
    struct qallow_vm_turn turn = QALLOW_VM_TURN_INIT;
    struct qallow_vm *vm = NULL;

    (void)state;
    assert_non_null(mkdtemp(directory));
    snprintf(log, sizeof log, "%s/log", directory);
    snprintf(branch, sizeof branch, "%s/branch", directory);
    store.sync = QALLOW_SYNC_NONE;
    options.store = &store;
    options.log = log;
    vm = make(program, &options);
    assert_int_equal(qallow_vm_tick(vm, &turn), 0);
    assert_int_equal(turn.epoch, 2);
    assert_int_equal(qallow_view_epoch(qallow_newest(qallow_vm_store(vm))), 2);
    struct outcome wanted = run(vm);
    assert_int_equal(qallow_vm_close(vm), 0);
    assert_int_equal(qallow_vm_create(program, strlen(program), "x", &options, &vm),
                     QALLOW_E_CANNOT_CREATE);
    options.log = branch;
    assert_int_equal(qallow_vm_resume(log, 2, &options, &vm), 0);
    struct outcome outcome = run(vm);
    assert_int_equal(outcome.ticks, wanted.ticks);
    assert_memory_equal(outcome.pages, wanted.pages, sizeof wanted.pages);
    assert_int_equal(qallow_vm_close(vm), 0);
    assert_int_equal(qallow_vm_resume(log, 99, &options, &vm), QALLOW_E_EPOCH_NOT_FOUND);
    for (size_t i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s%s", log, endings[i]);
        unlink(name);
        snprintf(name, sizeof name, "%s%s", branch, endings[i]);
        unlink(name);
    }
    assert_int_equal(rmdir(directory), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(watching_changes_nothing),
        cmocka_unit_test(each_event_comes_once),
        cmocka_unit_test(calls_are_counted),
        cmocka_unit_test(counts_survive_a_patch),
        cmocka_unit_test(what_cannot_be_done),
        cmocka_unit_test(with_a_log),
        cmocka_unit_test(a_patch_computes_what_is_stale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
