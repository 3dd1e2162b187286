/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Crashes, failures and full disks against the store, on the simulated disk.
 *
 *   crash_store crashes    random histories; before every change of the disk the machine crashes,
 *                          in several ways, and what is left is opened and compared with the
 *                          model; some of these recoveries crash too, at every change they make
 *   crash_store failures   the same histories with the n-th operation failing, once or from then
 *                          on, for every n; and with a disk that fills up
 *   crash_store memory     the same with the n-th allocation failing
 *
 * QALLOW_SEED     seed of the first history
 * QALLOW_CRASHES  how many crashes (or failing runs) to make; as many histories as that takes
 * A failure names the seed and the change at which it happened, and ends the program with 1.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "history.h"
#include "runtime/error.h"
#include "telemetry/telemetry.h"

static uint64_t crash_count, nested_count;

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

/* --- crashes at every change --- */

struct crasher {
    struct history *history;
    struct sim *disk;      /* whose changes are watched */
    uint64_t random;
    uint64_t change;       /* number of the change that is about to be made */
    int big;               /* megabytes a check: only every fourth change */
    int depth;             /* 1: a recovery is being crashed */
    int busy;
};

static void crash_before(void *context, enum sim_kind kind);

/* One crash now, and all that is expected afterwards. */
static void crash_once(struct crasher *crasher)
{
    static const unsigned ways[] = {SIM_RANDOM_LOSS, SIM_RANDOM_LOSS,
                                    SIM_RANDOM_LOSS | SIM_FLIP_BITS, SIM_KEEP_ALL, SIM_DROP_ALL,
                                    SIM_KEEP_ALL | SIM_FLIP_BITS};
    struct history *history = crasher->history;
    uint64_t seed = next_random(&crasher->random), what = next_random(&crasher->random);
    unsigned way = ways[seed % (sizeof ways / sizeof ways[0])];
    struct sim *image = sim_crash(crasher->disk, seed, way);
    struct crasher nested = {.history = history, .disk = image, .random = seed, .depth = 1};
    char before[sizeof history_where];

    memcpy(before, history_where, sizeof before);
    snprintf(history_where + strlen(history_where), sizeof history_where - strlen(history_where),
             "%s crash %llu before change %llu (way %u)", crasher->depth ? ", in recovery" : ":",
             (unsigned long long)seed, (unsigned long long)crasher->change, way);
    if (crasher->depth == 0 && what % 8 == 0)
        sim_set_hook(image, crash_before, &nested);
    uint64_t last = history_check(history, image, what % 16 == 1);
    sim_set_hook(image, NULL, NULL);
    if (what % 8 == 2)
        history_extend(history, image, last, seed);
    sim_destroy(image);
    memcpy(history_where, before, sizeof before);
    crash_count++;
    nested_count += crasher->depth != 0;
}

static void crash_before(void *context, enum sim_kind kind)
{
    struct crasher *crasher = context;
    crasher->change++;
    if (crasher->busy || (crasher->big && crasher->change % 4 != 0))
        return;
    crasher->busy = 1;
    for (unsigned i = crasher->depth || crasher->big ? 1 : 2; i > 0; i--)
        crash_once(crasher);
    crasher->busy = 0;
}

/* A step may put another disk in place of the old one. */
static void watch(struct crasher *crasher)
{
    if (crasher->disk != crasher->history->sim) {
        crasher->disk = crasher->history->sim;
        sim_set_hook(crasher->disk, crash_before, crasher);
    }
}

static void run_crashes(uint64_t seed, unsigned steps, int big)
{
    struct history *history = history_create(seed);
    struct crasher crasher = {.history = history, .random = ~seed, .big = big};
    history->big = big;
    watch(&crasher);
    for (unsigned i = 0; i < steps && history_step(history) == 0; i++)
        watch(&crasher);
    crash_before(&crasher, 0);
    history_close(history);
    crash_before(&crasher, 0);
    sim_set_hook(history->sim, NULL, NULL);
    history_check(history, history->sim, 1);
    history_destroy(history);
}

static void all_crashes(uint64_t seed, uint64_t limit)
{
    for (uint64_t i = seed; crash_count < limit; i++)
        run_crashes(i, 25, i % 16 == 3);
    printf("crashes: %llu, of them %llu in recovery; seeds %llu and on: every one recovered\n",
           (unsigned long long)crash_count, (unsigned long long)nested_count,
           (unsigned long long)seed);
    printf("(%llu epochs, %llu keyframes, %llu images)\n",
           (unsigned long long)qt_get(QT_LOG_COMMITS), (unsigned long long)qt_get(QT_LOG_KEYFRAMES),
           (unsigned long long)qt_get(QT_LOG_IMAGES));
}

/* --- the n-th operation fails --- */

/* Ends a history in which something failed: takes the failure away and looks what is left. */
static void finish_failing(struct history *history)
{
    sim_fail(history->sim, 0, 0, 0, 0);
    sim_set_capacity(history->sim, 0);
    qr_set_allocation_hook(NULL);
    if (history->store)
        qr_store_close(history->store); /* may say that it is broken; must not lose anything */
    history->store = NULL;
    for (unsigned flags = SIM_RANDOM_LOSS; flags <= SIM_DROP_ALL; flags++) {
        struct sim *image = sim_crash(history->sim, history->seed, flags);
        history_check(history, image, 1);
        sim_destroy(image);
    }
    history_check(history, history->sim, 1);
    history_destroy(history);
    history_where[0] = 0;
}

/* Goes on after errors, closing and opening the store, until `steps` are done or nothing works. */
static void run_failing(struct history *history, unsigned steps)
{
    unsigned errors = 0;
    for (unsigned i = 0; i < steps && errors < 8; i++) {
        if (history_step(history) == 0)
            continue;
        errors++;
        if (history->store && (history->error == QALLOW_E_STATE || errors > 3)) {
            qr_store_close(history->store);
            history->store = NULL;
        }
    }
}

static int run_failing_operation(uint64_t seed, unsigned kinds, uint64_t n, int error, int sticky)
{
    struct history *history = history_create(seed);
    history->tolerant = 1;
    history->keep_disk = 1;
    history->may_break = (kinds & SIM_READ) != 0;
    snprintf(history_where, sizeof history_where, ": operation %llu of %#x fails (%s%s)",
             (unsigned long long)n, kinds, strerror(error), sticky ? ", sticky" : "");
    sim_fail(history->sim, kinds, n, error, sticky);
    run_failing(history, 18);
    int delivered = sim_has_failed(history->sim);
    finish_failing(history);
    return delivered;
}

static void run_full_disk(uint64_t seed, uint64_t capacity)
{
    struct history *history = history_create(seed);
    history->tolerant = 1;
    history->keep_disk = 1;
    snprintf(history_where, sizeof history_where, ": a disk of %llu bytes",
             (unsigned long long)capacity);
    sim_set_capacity(history->sim, capacity);
    run_failing(history, 25);
    finish_failing(history);
}

static void all_failures(uint64_t seed, uint64_t limit)
{
    static const int errors[] = {EIO, ENOSPC, EDQUOT};
    uint64_t runs = 0, full = 0;
    for (; runs < limit; seed++) {
        unsigned kinds = seed % 2 ? SIM_CHANGES : SIM_ANY & ~SIM_CLOSE;
        int delivered = 1;
        for (uint64_t n = 1; delivered && runs < limit; n++) {
            delivered = run_failing_operation(seed, kinds, n, errors[n % 3], 0);
            delivered |= run_failing_operation(seed, kinds, n, errors[n % 3], 1);
            runs += 2;
        }
        for (uint64_t capacity = 4096; capacity < 400000; capacity += 4096 + capacity / 8, full++)
            run_full_disk(seed, capacity);
    }
    printf("failures: %llu operations failed, %llu disks filled up: nothing was lost\n",
           (unsigned long long)runs, (unsigned long long)full);
}

/* --- the n-th allocation fails --- */

static uint64_t allocations_left; /* until the failure; 0: none */
static int allocations_sticky, allocation_failed;

static int count_allocation(size_t size)
{
    if (allocations_left == 0 || --allocations_left > 0)
        return 0;
    allocation_failed = 1;
    if (allocations_sticky)
        allocations_left = 1;
    return 1;
}

static int run_failing_allocation(uint64_t seed, uint64_t n, int sticky)
{
    struct history *history = history_create(seed);
    history->tolerant = 1;
    history->keep_disk = 1;
    history->may_break = 1;
    allocations_left = n;
    allocations_sticky = sticky;
    allocation_failed = 0;
    snprintf(history_where, sizeof history_where, ": allocation %llu fails%s",
             (unsigned long long)n, sticky ? ", sticky" : "");
    qr_set_allocation_hook(count_allocation);
    run_failing(history, 18);
    finish_failing(history);
    return allocation_failed;
}

static void all_allocations(uint64_t seed, uint64_t limit)
{
    uint64_t runs = 0;
    for (; runs < limit; seed++) {
        int delivered = 1;
        for (uint64_t n = 1; delivered && runs < limit; n += 1 + n / 50) {
            delivered = run_failing_allocation(seed, n, 0);
            delivered |= run_failing_allocation(seed, n, 1);
            runs += 2;
        }
    }
    printf("memory: %llu allocations failed: nothing was lost\n", (unsigned long long)runs);
}

static void say_assertion(const char *cond, const char *file, int line)
{
    fprintf(stderr, "\nassertion failed: %s, %s:%d%s\n", cond, file, line, history_where);
}

int main(int argc, char **argv)
{
    uint64_t seed = from_environment("QALLOW_SEED", 1);
    const char *what = argc == 2 ? argv[1] : "";
    qr_set_assert_handler(say_assertion);
    if (strcmp(what, "crashes") == 0) {
        all_crashes(seed, from_environment("QALLOW_CRASHES", 2500));
    } else if (strcmp(what, "failures") == 0) {
        all_failures(seed, from_environment("QALLOW_CRASHES", 300));
    } else if (strcmp(what, "memory") == 0) {
        all_allocations(seed, from_environment("QALLOW_CRASHES", 300));
    } else {
        fputs("usage: crash_store crashes | failures | memory\n", stderr);
        return 2;
    }
    return 0;
}
