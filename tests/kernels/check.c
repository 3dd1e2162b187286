/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random numbers, guarded buffers, fills, and the report of failures. A fault inside a kernel (it
 * touched a guard page) is reported like any other failure, with the case that provoked it, and
 * ends the run.
 */
#include "tests/kernels/check.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/random.h"

#define GUARD_PAGE  4096u
#define GUARD_BYTES 128u
#define BUFFERS     6

struct ck_version ck_reference, ck_versions[CK_MAX_VERSIONS];
size_t ck_version_count;

/* --- random numbers --- */

static uint64_t random_state;

void ck_random_start(uint64_t seed) { random_state = seed; }

uint64_t ck_random(void) { return next_random(&random_state); }

uint64_t ck_random_below(uint64_t limit) { return ck_random() % limit; }

/* --- guarded buffers --- */

void ck_buffer_init(struct ck_buffer *buffer, size_t n)
{
    size_t size = (n + 2 * GUARD_BYTES + 64 + GUARD_PAGE - 1) / GUARD_PAGE * GUARD_PAGE;
    uint8_t *all = mmap(NULL, size + 2 * GUARD_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED || mprotect(all + GUARD_PAGE, size, PROT_READ | PROT_WRITE) != 0) {
        perror("checkkernels: mmap");
        exit(71);
    }
    *buffer = (struct ck_buffer){.mapping = all + GUARD_PAGE, .size = size};
}

static uint8_t guard_byte(const uint8_t *at) { return (uint8_t)(0xA5 ^ (uintptr_t)at); }

/* Calls on the guard bytes in front of and behind the buffer; those beyond the mapping are pages.
 */
static bool for_guards(const struct ck_buffer *buffer, bool (*visit)(uint8_t *at))
{
    uint8_t *end = buffer->mapping + buffer->size;
    for (size_t i = 1; i <= GUARD_BYTES; i++) {
        uint8_t *front = buffer->data - i, *behind = buffer->data + buffer->n + i - 1;
        if ((front >= buffer->mapping && !visit(front)) || (behind < end && !visit(behind)))
            return false;
    }
    return true;
}

static bool set_guard(uint8_t *at)
{
    *at = guard_byte(at);
    return true;
}

static bool guard_intact(uint8_t *at) { return *at == guard_byte(at); }

bool ck_guards_intact(const struct ck_buffer *buffer) { return for_guards(buffer, guard_intact); }

uint8_t *ck_place(struct ck_buffer *buffer, size_t n, enum ck_placement placement)
{
    size_t offset = 0;
    if (placement == CK_AT_END)
        offset = buffer->size - n;
    else if (placement == CK_MISALIGNED)
        offset = GUARD_BYTES + ck_random_below(64);
    buffer->data = buffer->mapping + offset;
    buffer->n = n;
    for_guards(buffer, set_guard);
    return buffer->data;
}

static struct ck_buffer buffers[BUFFERS];

uint8_t *ck_bytes(unsigned number, size_t n, enum ck_placement placement)
{
    struct ck_buffer *buffer = &buffers[number];
    if (buffer->mapping == NULL)
        ck_buffer_init(buffer, CK_MAX_LENGTH);
    return ck_place(buffer, n, placement);
}

/* --- fills --- */

static void fill_clusters(const uint8_t *a, uint8_t *b, size_t n, size_t gap)
{
    size_t around = gap < 100 ? gap : 100;
    for (size_t at = ck_random_below(2 * around + 1); at < n;) {
        size_t length = 1 + ck_random_below(ck_random_below(8) == 0 ? 200 : 8);
        for (; length > 0 && at < n; length--, at++)
            b[at] = (uint8_t)(a[at] ^ (1 + ck_random_below(255)));
        at += around > 2 && ck_random_below(8) ? around - 2 + ck_random_below(5)
                                               : 1 + ck_random_below(600);
    }
}

static void fill_random(uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)ck_random();
}

static uint8_t with_one_bit_changed(uint8_t byte)
{
    return (uint8_t)(byte ^ 1u << ck_random_below(8));
}

void ck_fill_pair(uint8_t *a, uint8_t *b, size_t n, enum ck_fill fill, size_t gap)
{
    if (fill == CK_EQUAL_ZERO || fill == CK_EQUAL_ONES)
        memset(a, fill == CK_EQUAL_ZERO ? 0 : 0xff, n);
    else if (fill == CK_PERIODIC)
        for (size_t i = 0; i < n; i++)
            a[i] = (uint8_t)(i % 251);
    else
        fill_random(a, n);
    memcpy(b, a, n);
    switch (fill) {
    case CK_RANDOM:
        fill_random(b, n);
        break;
    case CK_PERIODIC:
        for (size_t i = 0; i < n; i++)
            b[i] = (uint8_t)(i % 249);
        break;
    case CK_INVERTED:
    case CK_ALTERNATING:
        for (size_t i = 0; i < n; i += fill == CK_ALTERNATING ? 2 : 1)
            b[i] = (uint8_t)~a[i];
        break;
    case CK_SPARSE:
    case CK_SCATTERED:
        for (size_t at = 0, stride = fill == CK_SPARSE ? 4096 : 500; at < n; at += stride) {
            size_t any = ck_random_below(n);
            b[any] = with_one_bit_changed(b[any]);
        }
        break;
    case CK_CLUSTERS:
        fill_clusters(a, b, n, gap);
        break;
    case CK_FIRST:
    case CK_LAST:
        if (n > 0) {
            size_t at = fill == CK_FIRST ? 0 : n - 1;
            b[at] = with_one_bit_changed(b[at]);
        }
        break;
    default:
        break; /* the equal ones */
    }
}

/* --- reports --- */

static const char *const fill_names[CK_FILLS] = {
    "equal-zero", "equal-ones", "equal-random", "inverted",    "random", "periodic",
    "sparse",     "scattered",  "clusters",     "alternating", "first",  "last",
};
static const char *const placement_names[CK_PLACEMENTS] = {"at-end", "at-start", "misaligned"};

static struct {
    const struct ck_check *check;
    const struct ck_version *version;
    struct ck_case c;
    uint64_t seed;
    unsigned rounds, failures;
    const struct ck_version *reported[CK_MAX_VERSIONS + 1];
} now;

static void report(const char *what)
{
    fprintf(stderr,
            "FAIL %s %s: %s\n"
            "  case: length %zu, fill %s, placement %s, gap %zu, number %llu\n"
            "  repeat with: checkkernels --seed %llu --rounds %u --filter %s\n",
            now.check->kernel, now.version->name, what, now.c.n, fill_names[now.c.fill],
            placement_names[now.c.placement], now.c.gap, (unsigned long long)now.c.number,
            (unsigned long long)now.seed, now.rounds, now.check->kernel);
}

static void on_fault(int signal)
{
    report(signal == SIGSEGV ? "touched memory outside its buffers (SIGSEGV)" : "SIGBUS");
    _exit(1);
}

void ck_begin(const struct ck_version *version) { now.version = version; }

static void fail(const char *what)
{
    now.failures++;
    for (size_t i = 0; i <= CK_MAX_VERSIONS; i++) {
        if (now.reported[i] == now.version)
            return;
        if (now.reported[i] == NULL) {
            now.reported[i] = now.version;
            break;
        }
    }
    report(what);
}

void ck_expect(bool holds, const char *what)
{
    if (!holds)
        fail(what);
}

void ck_expect_number(uint64_t got, uint64_t expected, const char *what)
{
    char text[160];
    if (got == expected)
        return;
    snprintf(text, sizeof(text), "%s is %llu, expected %llu", what, (unsigned long long)got,
             (unsigned long long)expected);
    fail(text);
}

void ck_expect_bytes(const void *got, const void *expected, size_t n, const char *what)
{
    const uint8_t *x = got, *y = expected;
    char text[160];
    size_t at = 0;
    while (at < n && x[at] == y[at])
        at++;
    if (at == n)
        return;
    snprintf(text, sizeof(text), "%s: byte %zu of %zu is %02x, expected %02x", what, at, n, x[at],
             y[at]);
    fail(text);
}

void ck_expect_guards(void)
{
    for (size_t i = 0; i < BUFFERS; i++) {
        if (buffers[i].data != NULL)
            ck_expect(ck_guards_intact(&buffers[i]), "wrote outside its buffers");
    }
}

/* --- the walk through the cases --- */

static void run_case(size_t n, enum ck_fill fill, enum ck_placement placement)
{
    static const size_t gaps[] = {1,  2,  3,  4,  7,  8,  9,   15,   16,
                                  31, 32, 33, 63, 64, 65, 100, 1000, SIZE_MAX};
    now.c = (struct ck_case){n, fill, placement,
                             gaps[ck_random_below(sizeof(gaps) / sizeof(gaps[0]))], ck_random()};
    now.version = &ck_reference;
    now.check->run(&now.c);
}

static void run_length(size_t n)
{
    for (enum ck_fill fill = 0; fill < CK_FILLS; fill++) {
        for (enum ck_placement placement = 0; placement < CK_PLACEMENTS; placement++)
            run_case(n, fill, placement);
    }
}

unsigned ck_run_check(const struct ck_check *check, uint64_t seed, unsigned rounds)
{
    static const size_t around[] = {512, 1024, 4096, 65536};
    struct sigaction action = {.sa_handler = on_fault};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    memset(&now, 0, sizeof(now));
    now.check = check;
    now.seed = seed;
    now.rounds = rounds;
    ck_random_start(seed);
    for (unsigned i = 0; i < check->cases * rounds; i++)
        run_case(0, CK_RANDOM, CK_MISALIGNED);
    for (unsigned round = 0; check->cases == 0 && round < rounds; round++) {
        for (size_t n = 0; n <= 4 * 64 + 64 + 1; n++) /* every length up to a group and a block */
            run_length(n);
        for (size_t i = 0; i < sizeof(around) / sizeof(around[0]); i++) {
            for (size_t n = around[i] - 1; n <= around[i] + 1; n++)
                run_length(n);
            run_length(around[i] + 2 + ck_random_below(1000));
        }
        run_length(1 + ck_random_below(CK_MAX_LENGTH));
    }
    return now.failures;
}
