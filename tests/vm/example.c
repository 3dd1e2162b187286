/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Using the machine from another program: it runs some ticks, is watched, gets another definition
 * of a function, goes on, and says what was called how often.
 *
 *     cc example.c $(pkg-config --cflags --libs qallow) -o example && ./example DIRECTORY
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qallow/vm.h"

static const char before[] = ".page sums u64 1\n"
                             ".func main\n"
                             "again:\n"
                             "    call r1, step\n"
                             "    commit\n"
                             "    jmp again\n"
                             ".func step\n"
                             "    li r0, 0\n"
                             "    ld.64 r1, sums[r0]\n"
                             "    addi r1, r1, 1\n"
                             "    st.64 r1, sums[r0]\n"
                             "    emit sum, r1\n"
                             "    ret\n";

/* Says what failed; for a real program, do better than to exit. */
static void check(int result, const char *what)
{
    if (result == QALLOW_OK)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, qallow_strerror(result), qallow_error_detail());
    exit(EXIT_FAILURE);
}

/* Called where something happens; it says it. */
static int on_event(void *context, const struct qallow_vm_event *event)
{
    uint64_t *calls = context;

    if (event->what == QALLOW_VM_ON_CALL)
        ++*calls;
    else
        printf("tick %" PRIu64 " is epoch %" PRIu64 ": %" PRIu64 " fuel, %" PRIu64
               " calls so far\n",
               event->tick, event->epoch, event->fuel, *calls);
    return 0; /* anything else would stop the tick here */
}

static void run(struct qallow_vm *vm, int ticks)
{
    struct qallow_vm_turn turn = QALLOW_VM_TURN_INIT;
    struct qallow_vm_value value = QALLOW_VM_VALUE_INIT;

    for (int i = 0; i < ticks; i++) {
        check(qallow_vm_tick(vm, &turn), "tick");
        for (uint64_t n = 0; qallow_vm_emitted(vm, n, &value) == QALLOW_OK; n++)
            printf("  %s = %" PRIu64 "\n", value.name, value.bits);
    }
}

int main(int argc, char **argv)
{
    char log[4096], after[sizeof before];
    struct qallow_vm *vm;
    uint64_t calls = 0;

    /* With a log every tick is an epoch; `qallow vm --resume` goes on with it. */
    snprintf(log, sizeof log, "%s/run.tlog", argc > 1 ? argv[1] : ".");
    struct qallow_vm_options options = QALLOW_VM_OPTIONS_INIT;
    options.log = log;
    check(qallow_vm_create(before, strlen(before), "example.qvm", &options, &vm), "create");

    struct qallow_vm_watch watch = QALLOW_VM_WATCH_INIT;
    watch.what = QALLOW_VM_ON_CALL | QALLOW_VM_ON_TICK_DONE;
    watch.counts = 1;
    watch.tell = on_event;
    watch.context = &calls;
    check(qallow_vm_watch(vm, &watch), "watch");
    run(vm, 3);

    /* From here on a step is 10. */
    memcpy(after, before, sizeof before);
    memcpy(strstr(after, "r1, r1, 1\n"), "r1,r1,10\n", 9);
    struct qallow_vm_patch patch = QALLOW_VM_PATCH_INIT;
    check(qallow_vm_patch(vm, after, strlen(after), "patch", &patch), "patch");
    printf("world %" PRIu32 ": %" PRIu32 " defined anew, %" PRIu32 " stale\n", patch.world,
           patch.defined, patch.stale);
    run(vm, 2);

    struct qallow_vm_function function = QALLOW_VM_FUNCTION_INIT;
    for (uint64_t i = 0; qallow_vm_function(vm, i, &function) == QALLOW_OK; i++)
        printf("%s: of world %" PRIu32 ", %" PRIu64 " calls\n", function.name, function.age,
               function.calls);
    check(qallow_vm_close(vm), "close");
    return 0;
}
