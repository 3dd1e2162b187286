/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory-resident pages under 4 threads a core: they make, change, resize and free pages in
 * sections, read the newest content, pin epochs and read those, all at random.
 *
 * Nothing is compared while it runs. Each page has a list of what was done to it, in order (only
 * the section that has the page adds to it), and a section that touches a block leaves its number
 * in the block's first word. A read notes the page, the block, that number, and a hash of what it
 * got. In the end one thread carries out each page's list again on a plain array, and looks up
 * every read: a block that was read must be the block as the section of that number left it, what
 * was read of a snapshot must be the page as it was in that epoch, and the last state must be the
 * same. QALLOW_SEED=N repeats a run (the threads' order aside), QALLOW_ROUNDS=N makes it N times as
 * long.
 */
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <pthread.h>

#include "qallow/error.h"
#include "runtime/resident.h"
#include "tests/random.h"

enum { BLOCK = QR_RESIDENT_BLOCK, BLOCKS = 5, SIZE_MAX_PAGE = BLOCKS * BLOCK, SLOTS = 40 };

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                        \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fprintf(stderr, ": %s\n", qallow_error_detail());                                      \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* ---------------------------------------------------------------- notes */

enum kind { CREATE, WRITE, ZERO, RESIZE, STAMP, FREE };
struct step {
    enum kind kind;
    uint64_t epoch, section; /* the page's own count of sections */
    uint64_t offset, length; /* RESIZE, CREATE: length is the size */
    uint64_t seed;
};
struct page_log {
    uint64_t id;
    struct step *steps;
    size_t count, capacity;
    uint64_t sections;
    struct page_log *next; /* of all */
};

enum { ABSENT = -1 };
struct note { /* a read */
    const struct page_log *page;
    uint64_t when; /* section, or of a snapshot the epoch */
    int64_t size;  /* what was read; of a snapshot the page's size, or ABSENT */
    uint64_t block, hash;
    int snapshot;
};

static struct qr_resident *pages;
static _Atomic(struct page_log *) slots[SLOTS];
static _Atomic(struct page_log *) all_logs;
static _Atomic uint64_t next_id = 1;
static uint64_t epoch;
static pthread_mutex_t ordered = PTHREAD_MUTEX_INITIALIZER;

static uint64_t hash_of(const uint8_t *bytes, size_t length)
{
    uint64_t hash = length, word = 0;
    for (size_t i = 0; i + 8 <= length; i += 8) {
        memcpy(&word, bytes + i, 8);
        hash = (hash ^ word) * UINT64_C(0x9E3779B97F4A7C15);
        hash ^= hash >> 29;
    }
    for (size_t i = length / 8 * 8; i < length; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x9E3779B97F4A7C15);
    return hash;
}

static void fill(uint8_t *bytes, size_t length, uint64_t seed)
{
    for (size_t i = 0; i < length; i += 8) {
        uint64_t word = next_random(&seed);
        memcpy(bytes + i, &word, length - i < 8 ? length - i : 8);
    }
}

static void add_step(struct page_log *log, struct step step)
{
    if (log->count == log->capacity) {
        log->capacity = log->capacity ? log->capacity * 2 : 16;
        log->steps = realloc(log->steps, log->capacity * sizeof step);
    }
    log->steps[log->count++] = step;
}

/* ---------------------------------------------------------------- a thread */

struct worker {
    pthread_t thread;
    uint64_t random;
    unsigned steps;
    struct qr_section *section;
    struct qr_resident_reader *reader;
    struct note *notes;
    size_t note_count, note_capacity;
    uint64_t busy, late, changes;
    uint8_t bytes[SIZE_MAX_PAGE];
};

static void add_note(struct worker *w, struct note note)
{
    if (w->note_count == w->note_capacity) {
        w->note_capacity = w->note_capacity ? w->note_capacity * 2 : 64;
        w->notes = realloc(w->notes, w->note_capacity * sizeof note);
    }
    w->notes[w->note_count++] = note;
}

static size_t below(struct worker *w, size_t n) { return (size_t)(next_random(&w->random) % n); }

/* One of the pages; half of the time one of two, so that threads meet. */
static _Atomic(struct page_log *) *some_slot(struct worker *w)
{
    return &slots[below(w, below(w, 2) ? 2 : SLOTS)];
}

static size_t random_size(struct worker *w)
{
    return 8 + below(w, next_random(&w->random) % 3 ? 5000 : SIZE_MAX_PAGE - 8);
}

/* Leaves the section's number in the first word of every block of the range. */
static void stamp(struct worker *w, struct page_log *log, struct step step, uint64_t size)
{
    uint64_t end = step.offset + step.length, last = end ? (end - 1) / BLOCK : 0;
    step.kind = STAMP;
    for (uint64_t i = step.offset / BLOCK; i <= last && i * BLOCK + 8 <= size; i++) {
        int rc = qr_section_write(w->section, log->id, i * BLOCK, &step.section, 8);
        CHECK(!rc, "stamp page %llu", (unsigned long long)log->id);
        step.offset = i * BLOCK;
        add_step(log, step);
    }
}

static int write_some(struct worker *w, const struct page_log *log, const struct step *step)
{
    uint8_t *at;
    fill(w->bytes, step->length, step->seed);
    if (step->seed & 1)
        CHECK(!qr_section_prepare_all(
                  w->section,
                  (struct qr_range[]){{log->id, step->offset, step->length}, {log->id, 0, 8}},
                  1 + (step->seed >> 4 & 1), NULL),
              "prepare");
    if (step->length && step->offset / BLOCK == (step->offset + step->length - 1) / BLOCK &&
        step->seed & 2) {
        int rc = qr_section_edit(w->section, log->id, step->offset, step->length, &at);
        if (!rc)
            memcpy(at, w->bytes, step->length);
        return rc;
    }
    return qr_section_write(w->section, log->id, step->offset, w->bytes, step->length);
}

/* One change of a page that the section has. */
static void change(struct worker *w, struct page_log *log, uint64_t now)
{
    uint64_t size, kind = below(w, 10);
    int rc = qr_section_size(w->section, log->id, &size);
    struct step step = {WRITE, now, log->sections, below(w, size), 0, next_random(&w->random)};
    step.length = below(w, size - step.offset + 1);
    if (step.seed & 12)
        step.length = step.length > 200 ? 200 : step.length;
    if (!rc && kind == 0) {
        step.kind = RESIZE;
        step.length = random_size(w);
        rc = qr_section_resize(w->section, log->id, step.length);
        add_step(log, step);
        step.offset = step.length < size ? step.length : size;
        step.offset -= step.offset % BLOCK == 0; /* what was cut, or was the last block */
        size = step.length;
        step.length = size - (step.offset < size ? step.offset : size);
        step.offset = step.offset < size ? step.offset : size - 1;
    } else if (!rc && kind == 1) {
        step.kind = ZERO;
        rc = qr_section_zero(w->section, log->id, step.offset, step.length);
        add_step(log, step);
    } else if (!rc) {
        rc = write_some(w, log, &step);
        add_step(log, step);
    }
    CHECK(!rc, "change page %llu", (unsigned long long)log->id);
    stamp(w, log, step, size);
    w->changes++;
}

static void make_page(struct worker *w, _Atomic(struct page_log *) *slot, uint64_t now)
{
    struct page_log *log = calloc(1, sizeof *log), *none = NULL;
    size_t size = random_size(w);
    log->id = atomic_fetch_add(&next_id, 1);
    int rc = qr_section_create_page(w->section, log->id, size);
    CHECK(!rc, "create page %llu", (unsigned long long)log->id);
    log->sections = 1;
    add_step(log, (struct step){CREATE, now, 1, 0, size, 0});
    change(w, log, now);
    log->next = atomic_load(&all_logs);
    while (!atomic_compare_exchange_weak(&all_logs, &log->next, log))
        continue;
    if (atomic_compare_exchange_strong(slot, &none, log))
        return;
    CHECK(!qr_section_free_page(w->section, log->id), "free");
    add_step(log, (struct step){FREE, now, 1, 0, 0, 0});
}

static void change_page(struct worker *w, _Atomic(struct page_log *) *slot, uint64_t now)
{
    struct page_log *log = atomic_load(slot);
    uint64_t size;
    if (!log) {
        make_page(w, slot, now);
        return;
    }
    int rc = qr_section_size(w->section, log->id, &size); /* takes the page */
    w->busy += rc == QALLOW_E_BUSY;
    w->late += rc == QALLOW_E_STATE;
    if (rc) {
        CHECK(rc == QALLOW_E_BUSY || rc == QALLOW_E_STATE || rc == QALLOW_E_PAGE_NOT_FOUND, "take");
        return;
    }
    if (log->steps[log->count - 1].epoch != now)
        log->sections++;
    for (size_t n = 1 + below(w, 3); n > 0; n--)
        change(w, log, now);
    if (below(w, 30))
        return;
    CHECK(!qr_section_free_page(w->section, log->id), "free");
    add_step(log, (struct step){FREE, now, log->sections, 0, 0, 0});
    atomic_store(slot, NULL);
}

static void work_in_section(struct worker *w)
{
    pthread_mutex_lock(&ordered);
    uint64_t now = ++epoch;
    int rc = qr_section_begin(w->section, now);
    pthread_mutex_unlock(&ordered);
    CHECK(!rc, "begin %llu", (unsigned long long)now);
    for (size_t n = 1 + below(w, 4); n > 0; n--)
        change_page(w, some_slot(w), now);
    qr_section_end(w->section);
}

/* ---------------------------------------------------------------- reading */

static void note_block(struct worker *w, const struct page_log *log, uint64_t block, size_t length)
{
    uint64_t section;
    memcpy(&section, w->bytes, 8);
    add_note(w, (struct note){log, section, (int64_t)length, block, hash_of(w->bytes, length), 0});
}

static void read_newest(struct worker *w)
{
    const struct page_log *log = atomic_load(some_slot(w));
    uint64_t size;
    int rc = log ? qr_resident_size(w->reader, NULL, log->id, &size) : QALLOW_E_PAGE_NOT_FOUND;
    CHECK(!rc || rc == QALLOW_E_PAGE_NOT_FOUND, "size");
    if (rc)
        return;
    uint64_t block = below(w, (size + BLOCK - 1) / BLOCK), left = size - block * BLOCK;
    size_t length = left < BLOCK ? left : BLOCK;
    if (length < 8)
        return;
    rc = qr_resident_read(w->reader, NULL, log->id, block * BLOCK, w->bytes, length);
    CHECK(!rc || rc == QALLOW_E_PAGE_NOT_FOUND || rc == QALLOW_E_ARGUMENT, "read");
    if (!rc)
        note_block(w, log, block, length);
}

static void note_page(struct worker *w, const struct qr_resident_snapshot *snapshot,
                      const struct page_log *log)
{
    struct note note = {log, qr_resident_snapshot_epoch(snapshot), ABSENT, 0, 0, 1};
    uint64_t size;
    int rc = qr_resident_size(w->reader, snapshot, log->id, &size);
    CHECK(!rc || rc == QALLOW_E_PAGE_NOT_FOUND, "size");
    if (!rc) {
        rc = qr_resident_read(w->reader, snapshot, log->id, 0, w->bytes, size);
        CHECK(!rc, "page %llu of a snapshot", (unsigned long long)log->id);
        note.size = (int64_t)size;
        note.hash = hash_of(w->bytes, size);
    }
    add_note(w, note);
}

static void work_with_snapshot(struct worker *w)
{
    struct qr_resident_snapshot *snapshot;
    const struct page_log *logs[6];
    CHECK(!qr_resident_snapshot_create(pages, &snapshot), "snapshot");
    for (int i = 0; i < 6; i++)
        logs[i] = atomic_load(some_slot(w));
    for (int again = 0; again < 3; again++) {
        for (int i = 0; i < 6; i++) {
            if (logs[i])
                note_page(w, snapshot, logs[i]);
        }
        work_in_section(w);
        sched_yield();
    }
    qr_resident_snapshot_release(snapshot);
}

static void *work(void *argument)
{
    struct worker *w = argument;
    CHECK(!qr_section_create(pages, &w->section), "section");
    for (unsigned i = 0; i < w->steps; i++) {
        if (!w->reader || below(w, 100) == 0) { /* sometimes there are no readers at all */
            qr_resident_reader_destroy(w->reader);
            w->reader = NULL;
            work_in_section(w);
            CHECK(!qr_resident_reader_create(pages, &w->reader), "reader");
        }
        size_t what = below(w, 10);
        if (what < 4)
            work_in_section(w);
        else if (what < 9)
            read_newest(w);
        else
            work_with_snapshot(w);
    }
    qr_resident_reader_destroy(w->reader);
    qr_section_destroy(w->section);
    return NULL;
}

/* ---------------------------------------------------------------- the sequential model */

static uint8_t model[SIZE_MAX_PAGE + 8];
static int64_t model_size;

static void carry_out(const struct step *step)
{
    switch (step->kind) {
    case CREATE:
        memset(model, 0, sizeof model);
        model_size = (int64_t)step->length;
        break;
    case WRITE:
        fill(model + step->offset, step->length, step->seed);
        break;
    case ZERO:
        memset(model + step->offset, 0, step->length);
        break;
    case RESIZE:
        if (model_size > (int64_t)step->length)
            memset(model + step->length, 0, (size_t)model_size - step->length);
        model_size = (int64_t)step->length;
        break;
    case STAMP:
        memcpy(model + step->offset, &step->section, 8);
        break;
    case FREE:
        model_size = ABSENT;
        break;
    }
}

static int by_page_and_time(const void *a, const void *b)
{
    const struct note *x = a, *y = b;
    if (x->page != y->page)
        return x->page->id < y->page->id ? -1 : 1;
    if (x->snapshot != y->snapshot)
        return x->snapshot - y->snapshot;
    return (x->when > y->when) - (x->when < y->when);
}

static void check_note(const struct note *note)
{
    uint64_t at = note->block * BLOCK;
    if (note->snapshot)
        CHECK(note->size == model_size &&
                  (model_size < 0 || note->hash == hash_of(model, (size_t)model_size)),
              "page %llu in epoch %llu: %lld bytes, expected %lld",
              (unsigned long long)note->page->id, (unsigned long long)note->when,
              (long long)note->size, (long long)model_size);
    else
        CHECK(note->hash == hash_of(model + at, (size_t)note->size),
              "page %llu, block %llu after its section %llu", (unsigned long long)note->page->id,
              (unsigned long long)note->block, (unsigned long long)note->when);
}

/* All reads of a page: first those of the newest content, by section, then those of snapshots. */
static void check_page(const struct page_log *log, const struct note *notes, size_t count)
{
    for (int snapshot = 0; snapshot < 2; snapshot++) {
        size_t step = 0, i = 0;
        memset(model, 0, sizeof model);
        model_size = ABSENT;
        for (; i < count && notes[i].snapshot == snapshot; i++) {
            while (step < log->count &&
                   (snapshot ? log->steps[step].epoch : log->steps[step].section) <= notes[i].when)
                carry_out(&log->steps[step++]);
            check_note(&notes[i]);
        }
        notes += i;
        count -= i;
    }
    CHECK(count == 0, "sorted");
}

static void check_last_state(struct qr_resident_reader *reader)
{
    static uint8_t bytes[SIZE_MAX_PAGE];
    for (const struct page_log *log = atomic_load(&all_logs); log; log = log->next) {
        uint64_t size = 0;
        for (size_t i = 0; i < log->count; i++)
            carry_out(&log->steps[i]);
        int rc = qr_resident_size(reader, NULL, log->id, &size);
        if (model_size == ABSENT) {
            CHECK(rc == QALLOW_E_PAGE_NOT_FOUND, "freed");
            continue;
        }
        CHECK(!rc && (int64_t)size == model_size, "size of page %llu", (unsigned long long)log->id);
        CHECK(!qr_resident_read(reader, NULL, log->id, 0, bytes, size), "last read");
        CHECK(!memcmp(bytes, model, size), "page %llu in the end", (unsigned long long)log->id);
    }
}

static size_t check_notes(struct worker *workers, int count)
{
    size_t total = 0, from, to;
    for (int i = 0; i < count; i++)
        total += workers[i].note_count;
    struct note *notes = malloc((total + 1) * sizeof *notes);
    for (int i = 0, at = 0; i < count; i++) {
        if (workers[i].note_count)
            memcpy(notes + at, workers[i].notes, workers[i].note_count * sizeof *notes);
        at += (int)workers[i].note_count;
        free(workers[i].notes);
    }
    qsort(notes, total, sizeof *notes, by_page_and_time);
    for (from = 0; from < total; from = to) {
        for (to = from; to < total && notes[to].page == notes[from].page; to++)
            continue;
        check_page(notes[from].page, notes + from, to - from);
    }
    free(notes);
    return total;
}

static void finish(void)
{
    struct qr_resident_stats stats;
    for (struct page_log *log = atomic_load(&all_logs), *next; log; log = next) {
        next = log->next;
        free(log->steps);
        free(log);
    }
    qr_resident_stats(pages, &stats);
    printf("%llu epochs, %llu pages made, %llu left; copied for snapshots %llu, for readers %llu, "
           "waits %llu\n",
           (unsigned long long)stats.epoch, (unsigned long long)atomic_load(&next_id) - 1,
           (unsigned long long)stats.pages, (unsigned long long)stats.copied_for_snapshots,
           (unsigned long long)stats.copied_for_readers, (unsigned long long)stats.reader_waits);
    CHECK(!stats.copies && !stats.copy_bytes && !stats.snapshots && !stats.readers, "left over");
    CHECK(!stats.waiting && !stats.waiting_bytes, "%llu waiting",
          (unsigned long long)stats.waiting);
    CHECK(stats.copied_for_snapshots > 0, "snapshots were of use");
}

int main(void)
{
    const char *text = getenv("QALLOW_SEED"), *times = getenv("QALLOW_ROUNDS");
    uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
    unsigned rounds = times ? (unsigned)strtoul(times, NULL, 0) : 1;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int count = cores < 1 ? 4 : cores > 32 ? 128 : 4 * (int)cores;
    struct worker *workers = calloc((size_t)count, sizeof *workers);
    struct qr_resident_reader *reader;
    printf("QALLOW_SEED=%llu, %d threads\n", (unsigned long long)seed, count);
    fflush(stdout);
    struct qr_pool *pool;
    struct qr_pool_options options = {.reserve = UINT64_C(4) << 30};
    struct qr_pool_stats left;
    CHECK(!qr_pool_create(&options, &pool), "pool");
    CHECK(!qr_resident_create(pool, &pages), "create");
    for (int i = 0; i < count; i++) {
        workers[i].random = seed + (uint64_t)i * 1000003;
        workers[i].steps = 800 * rounds;
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
    uint64_t busy = 0, changes = 0, late = 0;
    for (int i = 0; i < count; i++) {
        pthread_join(workers[i].thread, NULL);
        busy += workers[i].busy;
        late += workers[i].late;
        changes += workers[i].changes;
    }
    CHECK(!qr_resident_reader_create(pages, &reader), "reader");
    check_last_state(reader);
    qr_resident_reader_destroy(reader);
    size_t notes = check_notes(workers, count);
    printf("%zu reads compared, %llu changes; pages busy %llu times, late %llu\n", notes,
           (unsigned long long)changes, (unsigned long long)busy, (unsigned long long)late);
    CHECK(notes > (size_t)count * 50, "too few reads");
    finish();
    free(workers);
    CHECK(!qr_resident_destroy(pages), "destroy");
    qr_pool_stats(pool, &left);
    CHECK(!left.blocks && !left.double_frees, "%llu blocks left", (unsigned long long)left.blocks);
    qr_pool_destroy(pool);
    return 0;
}
