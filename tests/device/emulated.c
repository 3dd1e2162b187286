/* SPDX-License-Identifier: Apache-2.0 */
/* The emulated device; see emulated.h. */
#include "tests/device/emulated.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/operations.h"

/* --- operations --- */

/* Every other time the threads come in the reverse order: a phase that reads what another thread
 * writes in the same phase, and so lacks a barrier, gives another result. */
static unsigned turn;

#define RUN_PHASE(phase)                                                                           \
    for (unsigned thread = 0; thread < QB_TILE_THREADS; thread++)                                  \
        phase(batch, &tile, shared, turn % 2 ? QB_TILE_THREADS - 1 - thread : thread);

#define RUN(name, shared_type, groups, locate, PHASES)                                             \
    static void run_##name(const struct qb_batch *batch)                                           \
    {                                                                                              \
        struct shared_type *shared = malloc(sizeof *shared);                                       \
        memset(shared, 0xee, sizeof *shared);                                                      \
        for (uint64_t i = 0; i < groups(batch); i++) {                                             \
            const struct qb_tile tile = locate(batch, i);                                          \
            PHASES(RUN_PHASE)                                                                      \
        }                                                                                          \
        free(shared);                                                                              \
    }
QB_EACH_OPERATION(RUN)

#define ROW(name, shared, groups, locate, phases) run_##name,
static void (*const operations[])(const struct qb_batch *) = {QB_EACH_OPERATION(ROW)};
_Static_assert(sizeof operations / sizeof operations[0] == QB_OPERATIONS, "one for each");

void emulated_run(enum qb_operation operation, const struct qb_batch *batch)
{
    turn++;
    operations[operation](batch);
}

void emulated_scan(struct qb_counts *counts, uint64_t count)
{
    struct qb_counts sum = {0, 0, 0, 0};
    for (uint64_t i = 0; i < count; i++) {
        const struct qb_counts own = counts[i];
        counts[i] = sum;
        qb_counts_add(&sum, own);
    }
}

/* --- failures --- */

static struct {
    unsigned long count[EMULATED_CALLS], at;
    enum emulated_call call;
    enum qb_result result;
    bool lost;
    char text[128];
} faults;

void emulated_fail(enum emulated_call call, unsigned long n, enum qb_result result)
{
    memset(&faults, 0, sizeof faults);
    faults.call = call;
    faults.at = n;
    faults.result = result;
}

unsigned long emulated_count(enum emulated_call call) { return faults.count[call]; }

static enum qb_result counted(enum emulated_call call)
{
    faults.count[call]++;
    faults.count[EMULATED_ANY]++;
    if (faults.at != 0 && (faults.call == call || faults.call == EMULATED_ANY) &&
        faults.count[faults.call] == faults.at) {
        faults.lost = faults.result == QB_LOST;
        snprintf(faults.text, sizeof faults.text, "call %d failed (injected %d)", (int)call,
                 (int)faults.result);
        return faults.result;
    }
    return faults.lost ? QB_LOST : QB_DONE;
}

static const char *text(void *context) { return faults.text; }

/* --- copies that were begun --- */

/* A copy between the device and memory that it can reach happens as late as it may: when somebody
 * waits for it, or before the next work on the device. So who uses a pinned buffer again without
 * having waited loses what was in it. There is one queue for all streams. */
static struct {
    void *to;
    const void *from;
    uint64_t size;
} pending[64];
static uint64_t begun, done; /* copies so far */

/* Does the first `count` copies. */
static void catch_up(uint64_t count)
{
    for (; done < count; done++) {
        const unsigned i = done % (sizeof pending / sizeof *pending);
        memmove(pending[i].to, pending[i].from, pending[i].size);
    }
}

static void begin_copy(void *to, const void *from, uint64_t size)
{
    const unsigned room = sizeof pending / sizeof *pending;
    if (begun - done == room)
        catch_up(done + 1);
    pending[begun % room].to = to;
    pending[begun % room].from = from;
    pending[begun % room].size = size;
    begun++;
}

/* --- memory --- */

struct block {
    struct block *next;
    uint8_t *memory;
    uint64_t size;
    enum qb_memory kind;
};

static struct block *blocks;
static uint64_t allocated, memory_bytes = UINT64_C(1) << 30, bus_bytes;

uint64_t emulated_allocated(void) { return allocated; }
uint64_t emulated_bus_bytes(void) { return bus_bytes; }
void emulated_set_memory(uint64_t bytes) { memory_bytes = bytes; }

static struct block *owner(const void *p)
{
    const uintptr_t at = (uintptr_t)p;
    for (struct block *b = blocks; b != NULL; b = b->next) {
        if (at >= (uintptr_t)b->memory && at < (uintptr_t)b->memory + b->size)
            return b;
    }
    return NULL;
}

bool emulated_owns(const void *p) { return owner(p) != NULL; }

static enum qb_result describe(void *context, struct qb_device_info *info)
{
    memset(info, 0, sizeof *info);
    enum qb_result result = counted(EMULATED_DESCRIBE);
    if (result != QB_DONE)
        return result;
    snprintf(info->name, sizeof info->name, "emulated");
    info->total_bytes = memory_bytes;
    info->free_bytes = memory_bytes - allocated;
    info->driver = info->runtime = 13000;
    info->major = 9;
    info->processors = 1;
    return QB_DONE;
}

static enum qb_result allocate(void *context, enum qb_memory kind, uint64_t size, void **memory)
{
    *memory = NULL;
    enum qb_result result = counted(EMULATED_ALLOCATE);
    if (result != QB_DONE)
        return result;
    if (kind != QB_MEMORY_PINNED && size > memory_bytes - allocated) {
        snprintf(faults.text, sizeof faults.text, "allocate: out of memory");
        return QB_OUT_OF_MEMORY;
    }
    struct block *block = calloc(1, sizeof *block);
    if (posix_memalign((void **)&block->memory, 256, size) != 0)
        abort();
    memset(block->memory, 0xdd, size);
    block->size = size;
    block->kind = kind;
    block->next = blocks;
    blocks = block;
    allocated += kind == QB_MEMORY_PINNED ? 0 : size;
    *memory = block->memory;
    return QB_DONE;
}

static void release(void *context, enum qb_memory kind, void *memory)
{
    if (memory == NULL)
        return;
    catch_up(begun);
    for (struct block **b = &blocks; *b != NULL; b = &(*b)->next) {
        struct block *found = *b;
        if (found->memory != memory)
            continue;
        if (found->kind != kind)
            break;
        *b = found->next;
        allocated -= kind == QB_MEMORY_PINNED ? 0 : found->size;
        free(found->memory);
        free(found);
        return;
    }
    fputs("emulated: released what was not allocated\n", stderr);
    abort();
}

static bool is_device(const void *p)
{
    const struct block *block = owner(p);
    return block != NULL && block->kind == QB_MEMORY_DEVICE;
}

static enum qb_result copy(void *context, void *to, const void *from, uint64_t size, void *stream)
{
    enum qb_result result = counted(EMULATED_COPY);
    if (result != QB_DONE || size == 0)
        return result;
    bus_bytes += is_device(to) != is_device(from) ? size : 0;
    begin_copy(to, from, size);
    if (owner(to) == NULL || owner(from) == NULL) /* the CPU's: done when this returns */
        catch_up(begun);
    return QB_DONE;
}

static enum qb_result fill(void *context, void *to, int byte, uint64_t size, void *stream)
{
    enum qb_result result = counted(EMULATED_FILL);
    catch_up(begun);
    if (result == QB_DONE && size > 0)
        memset(to, byte, size);
    return result;
}

static enum qb_result prefetch(void *context, const void *memory, uint64_t size, int to_device,
                               void *stream)
{
    return counted(EMULATED_PREFETCH);
}

static enum qb_result launch(void *context, enum qb_operation operation,
                             const struct qb_batch *batch, void *stream)
{
    enum qb_result result = counted(EMULATED_LAUNCH);
    catch_up(begun);
    if (result == QB_DONE)
        emulated_run(operation, batch);
    return result;
}

static enum qb_result scan_bytes(void *context, uint64_t count, uint64_t *bytes)
{
    *bytes = 1 + count / 64; /* nothing is done with it */
    return counted(EMULATED_SCAN);
}

static enum qb_result scan(void *context, struct qb_counts *counts, uint64_t count, void *memory,
                           uint64_t bytes, void *stream)
{
    enum qb_result result = counted(EMULATED_SCAN);
    catch_up(begun);
    if (result == QB_DONE)
        emulated_scan(counts, count);
    return result;
}

static enum qb_result stream_create(void *context, void **stream)
{
    *stream = NULL;
    enum qb_result result = counted(EMULATED_STREAM);
    if (result == QB_DONE)
        *stream = calloc(1, sizeof begun);
    return result;
}

static void stream_destroy(void *context, void *stream) { free(stream); }

static enum qb_result event_create(void *context, void **event)
{
    return stream_create(context, event);
}

/* An event is the number of copies that were begun before it. */
static enum qb_result event_record(void *context, void *event, void *stream)
{
    memcpy(event, &begun, sizeof begun);
    return counted(EMULATED_STREAM);
}

static enum qb_result event_wait(void *context, void *event)
{
    uint64_t count;
    memcpy(&count, event, sizeof count);
    catch_up(count);
    return counted(EMULATED_WAIT);
}

static enum qb_result event_elapsed(void *context, void *from, void *to, double *milliseconds)
{
    *milliseconds = 0;
    return QB_DONE;
}

static enum qb_result wait_for(void *context, void *stream)
{
    catch_up(begun);
    return counted(EMULATED_WAIT);
}

const struct qb_runtime *emulated_runtime(void)
{
    static const struct qb_runtime table = {
        .version = 1,
        .name = "emulated",
        .describe = describe,
        .allocate = allocate,
        .release = release,
        .copy = copy,
        .fill = fill,
        .prefetch = prefetch,
        .launch = launch,
        .scan_bytes = scan_bytes,
        .scan = scan,
        .stream_create = stream_create,
        .stream_destroy = stream_destroy,
        .event_create = event_create,
        .event_destroy = stream_destroy,
        .event_record = event_record,
        .event_wait = event_wait,
        .event_elapsed = event_elapsed,
        .wait = wait_for,
        .text = text,
    };
    return &table;
}
