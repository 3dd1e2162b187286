/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads with transactions side by side, against what a single thread would have done.
 *
 * Each thread writes, resizes, creates and frees pages in transactions of its own, on pages they
 * all share, keeps what each transaction was to do, and learns the epoch it became. Afterwards the
 * kept transactions are done once more in the order of their epochs, to plain arrays, and every
 * epoch of the log must hold just that. Readers meanwhile look at pages of the newest state that
 * every transaction changes in one way: they must never see half of one.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qallow/store.h"
#include "tests/random.h"

enum { PAGES = 24, PAGE_MAX = 9000, THREADS = 6, CHANGES = 6, PAIR = 64 };

static uint64_t seed;
static unsigned rounds = 60;

#define CHECK(call)                                                                                \
    do {                                                                                           \
        int result_ = (call);                                                                      \
        if (result_ < 0) {                                                                         \
            fprintf(stderr, "%s:%d: %s: %d: %s (QALLOW_SEED=%llu)\n", __FILE__, __LINE__, #call,   \
                    result_, qallow_error_detail(), (unsigned long long)seed);                     \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)
#define REQUIRE(condition) CHECK((condition) ? 0 : -1)

enum what { WRITE, RESIZE, CREATE, FREE };
struct change {
    enum what what;
    uint64_t page, offset, value; /* value: what the bytes are made of */
    size_t length;
};
struct done {
    uint64_t epoch;
    size_t count;
    struct change changes[CHANGES];
};
struct thread {
    pthread_t id;
    unsigned number;
    struct done *done;
    size_t count;
    unsigned busy;
};

static struct qallow_store *store;
static uint64_t shared_pages[PAGES], pair[2];
static int writers_left = THREADS;

static void make_bytes(uint8_t *to, size_t length, uint64_t value)
{
    for (size_t i = 0; i < length; i++)
        to[i] = (uint8_t)(next_random(&value) >> 9);
}

/* Both pages of the pair get the same new bytes; whoever reads one after the other from a snapshot
 * must find them equal. 0: somebody else has it. */
static int change_pair(struct qallow_txn *txn, uint64_t value)
{
    uint8_t bytes[PAIR];
    make_bytes(bytes, sizeof bytes, value);
    for (int i = 0; i < 2; i++) {
        int rc = qallow_page_write(txn, pair[i], 0, bytes, sizeof bytes);
        if (rc == QALLOW_E_BUSY)
            return 0;
        CHECK(rc);
    }
    return 1;
}

/* 0: the page, or the structure, is somebody else's. */
static int change(struct qallow_txn *txn, struct change *c)
{
    uint8_t bytes[PAGE_MAX];
    char name[64];
    int rc = 0;
    if (c->what == WRITE) {
        make_bytes(bytes, c->length, c->value);
        rc = qallow_page_write(txn, c->page, c->offset, bytes, c->length);
        if (rc == QALLOW_E_INVALID_DELTA) { /* it has become shorter */
            c->offset = 0;
            rc = qallow_page_write(txn, c->page, 0, bytes, c->length);
        }
    } else if (c->what == RESIZE) {
        rc = qallow_page_resize(txn, c->page, c->length);
    } else if (c->what == CREATE) {
        struct qallow_page_options options = QALLOW_PAGE_OPTIONS_INIT;
        snprintf(name, sizeof name, "new-%llx", (unsigned long long)c->value);
        options.name = name;
        rc = qallow_page_create(txn, &options, &c->page);
        if (rc == 0) {
            make_bytes(bytes, c->length, c->value);
            CHECK(qallow_page_write(txn, c->page, 0, bytes, c->length));
        }
    } else {
        rc = qallow_page_free(txn, c->page);
    }
    if (rc == QALLOW_E_BUSY || rc == QALLOW_E_PAGE_NOT_FOUND)
        return 0;
    CHECK(rc);
    return 1;
}

/* Pages a thread has created and not freed are its own to free. */
static struct change choose(uint64_t *random, uint64_t *own)
{
    uint64_t r = next_random(random) % 100;
    struct change c = {.value = next_random(random)};
    c.page = shared_pages[next_random(random) % PAGES];
    c.offset = next_random(random) % 4000;
    c.length = 1 + next_random(random) % (r % 5 ? 100 : PAGE_MAX - 4000);
    c.what = r < 80 ? WRITE : r < 90 ? RESIZE : *own && r < 95 ? FREE : CREATE;
    if (c.what == FREE)
        c.page = *own;
    return c;
}

static void transaction(struct thread *thread, uint64_t *random, uint64_t *own)
{
    struct done *done = &thread->done[thread->count];
    struct qallow_txn *txn;
    uint64_t made = *own;
    size_t wanted = 1 + next_random(random) % (CHANGES - 1);
    done->count = 0;
    CHECK(qallow_begin(store, &txn));
    uint64_t value = next_random(random);
    if (value % 3 == 0 && change_pair(txn, value))
        done->changes[done->count++] =
            (struct change){.what = WRITE, .page = pair[0], .length = PAIR, .value = value};
    while (done->count < wanted) {
        struct change c = choose(random, &made);
        if (!change(txn, &c)) {
            thread->busy++;
            break;
        }
        made = c.what == CREATE ? c.page : c.what == FREE ? 0 : made;
        done->changes[done->count++] = c;
    }
    if (next_random(random) % 8 == 0) {
        qallow_abort(txn);
        return;
    }
    uint64_t before = qallow_view_epoch(qallow_newest(store));
    CHECK(qallow_commit(txn, &done->epoch));
    if (done->count == 0)
        return;
    REQUIRE(done->epoch >= before);
    *own = made;
    thread->count++;
}

static void *write_pages(void *context)
{
    struct thread *thread = context;
    uint64_t random = seed + thread->number * UINT64_C(7919), own = 0;
    for (unsigned i = 0; i < rounds; i++)
        transaction(thread, &random, &own);
    __atomic_sub_fetch(&writers_left, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static void *read_pair(void *context)
{
    uint8_t a[PAIR], b[PAIR];
    uint64_t *looks = context;
    while (__atomic_load_n(&writers_left, __ATOMIC_SEQ_CST) > 0) {
        struct qallow_view *view;
        CHECK(qallow_snapshot(store, &view));
        CHECK(qallow_page_read(view, pair[0], 0, a, PAIR));
        CHECK(qallow_page_read(view, pair[1], 0, b, PAIR));
        REQUIRE(memcmp(a, b, PAIR) == 0);
        qallow_view_destroy(view);
        CHECK(qallow_page_read(qallow_newest(store), pair[0], 0, a, PAIR));
        ++*looks;
    }
    return NULL;
}

/* --- the model --- */

struct model {
    uint64_t count;
    struct {
        int there;
        uint64_t size;
        uint8_t bytes[PAGE_MAX * 2];
    } * pages; /* by id */
};

static void apply(struct model *m, const struct change *c)
{
    uint8_t bytes[PAGE_MAX];
    if (c->page >= m->count) {
        uint64_t count = c->page * 2 + 64;
        m->pages = realloc(m->pages, count * sizeof *m->pages);
        REQUIRE(m->pages != NULL);
        memset(&m->pages[m->count], 0, (count - m->count) * sizeof *m->pages);
        m->count = count;
    }
    uint64_t end = c->offset + c->length;
    switch (c->what) {
    case FREE:
        m->pages[c->page].there = 0;
        return;
    case RESIZE:
        if (c->length > m->pages[c->page].size)
            memset(m->pages[c->page].bytes + m->pages[c->page].size, 0,
                   c->length - m->pages[c->page].size);
        m->pages[c->page].size = c->length;
        return;
    case CREATE:
        m->pages[c->page].there = 1;
        m->pages[c->page].size = 0;
        end = c->length;
        /* fallthrough */
    default:
        make_bytes(bytes, c->length, c->value);
        memcpy(m->pages[c->page].bytes + end - c->length, bytes, c->length);
        if (end > m->pages[c->page].size)
            m->pages[c->page].size = end;
    }
}

static void compare(const struct model *m, uint64_t epoch)
{
    uint8_t bytes[PAGE_MAX * 2];
    struct qallow_view *view;
    CHECK(qallow_view_at(store, epoch, &view));
    for (uint64_t id = 1; id < m->count; id++) {
        struct qallow_page info = QALLOW_PAGE_INIT;
        int rc = qallow_page_get(view, id, &info);
        if (!m->pages[id].there) {
            REQUIRE(rc == QALLOW_E_PAGE_NOT_FOUND);
            continue;
        }
        CHECK(rc);
        REQUIRE(info.bytes == m->pages[id].size);
        CHECK(qallow_page_read(view, id, 0, bytes, info.bytes));
        REQUIRE(memcmp(bytes, m->pages[id].bytes, info.bytes) == 0);
    }
    qallow_view_destroy(view);
}

static int by_epoch(const void *a, const void *b)
{
    const struct done *x = *(const struct done *const *)a, *y = *(const struct done *const *)b;
    return x->epoch < y->epoch ? -1 : x->epoch > y->epoch;
}

/* Two transactions may have one epoch: one that found nothing to change is told the newest. */
static uint64_t check_history(struct thread *threads, struct model *m, uint64_t first)
{
    struct done **order = malloc((size_t)THREADS * rounds * sizeof *order);
    size_t count = 0;
    uint64_t newest = qallow_view_epoch(qallow_newest(store)), checked = 0;
    for (int t = 0; t < THREADS; t++)
        for (size_t i = 0; i < threads[t].count; i++)
            order[count++] = &threads[t].done[i];
    qsort(order, count, sizeof *order, by_epoch);
    compare(m, first);
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < order[i]->count; k++) {
            struct change c = order[i]->changes[k];
            apply(m, &c);
            if (c.page == pair[0]) {
                c.page = pair[1];
                apply(m, &c);
            }
        }
        if (i + 1 == count || order[i + 1]->epoch != order[i]->epoch) {
            compare(m, order[i]->epoch);
            checked++;
        }
    }
    REQUIRE(count == 0 || order[count - 1]->epoch == newest);
    free(order);
    return checked;
}

static uint64_t create_pages(struct model *m)
{
    struct qallow_txn *txn;
    uint64_t epoch;
    CHECK(qallow_begin(store, &txn));
    for (int i = 0; i < PAGES + 2; i++) {
        struct qallow_page_options options = QALLOW_PAGE_OPTIONS_INIT;
        char name[16];
        struct change c = {.what = CREATE, .length = i < PAGES ? 5000 : PAIR, .value = 7};
        uint8_t bytes[5000];
        snprintf(name, sizeof name, "page-%d", i);
        options.name = name;
        CHECK(qallow_page_create(txn, &options, &c.page));
        make_bytes(bytes, c.length, c.value);
        CHECK(qallow_page_write(txn, c.page, 0, bytes, c.length));
        *(i < PAGES ? &shared_pages[i] : &pair[i - PAGES]) = c.page;
        apply(m, &c);
    }
    CHECK(qallow_commit(txn, &epoch));
    return epoch;
}

static void run(const char *path, enum qallow_sync sync, uint64_t memory)
{
    struct qallow_options options = QALLOW_OPTIONS_INIT;
    struct thread threads[THREADS];
    struct model model = {0};
    uint64_t looks[2] = {0, 0}, busy = 0, transactions = 0;
    pthread_t readers[2];
    options.writable = options.create = 1;
    options.sync = sync;
    options.max_memory = memory;
    writers_left = THREADS;
    CHECK(qallow_open(path, &options, &store));
    uint64_t first = create_pages(&model);
    for (unsigned i = 0; i < THREADS; i++) {
        threads[i] = (struct thread){.number = i, .done = calloc(rounds, sizeof(struct done))};
        REQUIRE(pthread_create(&threads[i].id, NULL, write_pages, &threads[i]) == 0);
    }
    for (int i = 0; i < 2; i++)
        REQUIRE(pthread_create(&readers[i], NULL, read_pair, &looks[i]) == 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i].id, NULL);
    for (int i = 0; i < 2; i++)
        pthread_join(readers[i], NULL);
    uint64_t checked = check_history(threads, &model, first);
    CHECK(qallow_verify(store, 2));
    CHECK(qallow_close(store));
    for (int i = 0; i < THREADS; i++) {
        busy += threads[i].busy;
        transactions += threads[i].count;
        free(threads[i].done);
    }
    free(model.pages);
    printf(
        "%llu transactions in %llu epochs, %llu times busy, %llu looks: as one after the other\n",
        (unsigned long long)transactions, (unsigned long long)checked, (unsigned long long)busy,
        (unsigned long long)(looks[0] + looks[1]));
    remove(path);
}

int main(int argc, char **argv)
{
    char path[4096], side[4200];
    const char *given = getenv("QALLOW_SEED"), *directory = getenv("TMPDIR");
    seed = given ? strtoull(given, NULL, 10) : 1;
    if (argc > 1)
        rounds = (unsigned)strtoul(argv[1], NULL, 10);
    printf("QALLOW_SEED=%llu\n", (unsigned long long)seed);
    snprintf(path, sizeof path, "%s/qallow-transactions-XXXXXX", directory ? directory : "/tmp");
    int file = mkstemp(path);
    REQUIRE(file >= 0);
    remove(path);
    run(path, QALLOW_SYNC_NONE, 0);
    run(path, QALLOW_SYNC_COMMIT, 0);
    run(path, QALLOW_SYNC_NONE, 40000); /* pages drop each other from memory */
    const char *const beside[] = {".lock", "-index"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(side, sizeof side, "%s%s", path, beside[i]);
        remove(side);
    }
    return 0;
}
