/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events: as bytes, told live, and again from the log. QALLOW_SEED=n repeats a run.
 */
#include <pthread.h>

#include "qallow/event.h"
#include "runtime/os.h"
#include "tests/graph/support.h"

/* --- as bytes --- */

static struct qallow_event event_of(uint32_t type)
{
    struct qallow_event e = QALLOW_EVENT_INIT;
    e.type = type;
    e.time_ns = 1234567890123456789;
    return e;
}

static void assert_round_trip(const struct qallow_event *event)
{
    struct qallow_event found = QALLOW_EVENT_INIT;
    uint8_t bytes[600], again[600];
    size_t length, used, second;
    assert_ok(qallow_event_encode(event, bytes, sizeof bytes, &length));
    assert_int_equal(bytes[0], event->type);
    assert_ok(qallow_event_decode(bytes, length, &found, &used));
    assert_int_equal(used, length);
    assert_int_equal(found.type, event->type);
    assert_int_equal(found.time_ns, event->time_ns);
    assert_int_equal(found.page, event->page);
    assert_int_equal(found.change, event->change);
    assert_int_equal(found.kind, event->kind);
    assert_int_equal(found.exported, event->exported);
    assert_int_equal(found.parent, event->parent);
    assert_int_equal(found.bytes, event->bytes);
    assert_int_equal(found.offset, event->offset);
    assert_int_equal(found.changed, event->changed);
    assert_memory_equal(found.digest, event->digest, sizeof found.digest);
    assert_int_equal(found.name_length, event->name_length);
    if (event->name_length)
        assert_memory_equal(found.name, event->name, event->name_length);
    if (event->data)
        assert_memory_equal(found.data, event->data, event->length);
    assert_ok(qallow_event_encode(&found, again, sizeof again, &second)); /* from its data */
    assert_int_equal(second, length);
    assert_memory_equal(again, bytes, length);
    found.data = NULL; /* and from its fields */
    found.length = 0;
    if (!event->data) {
        assert_ok(qallow_event_encode(&found, again, sizeof again, &second));
        assert_memory_equal(again, bytes, length);
    }
    for (size_t cut = 0; cut < length; cut++)
        assert_result(qallow_event_decode(bytes, cut, &found, &used), QALLOW_E_SERIALIZATION);
    assert_result(qallow_event_encode(event, again, length - 1, &second), QALLOW_E_LIMIT);
    assert_int_equal(second, length);
}

static void test_round_trip(void **state)
{
    struct qallow_event e;
    for (uint32_t change = QALLOW_PAGE_CREATED; change <= QALLOW_PAGE_FREED; change++) {
        int is_named = change == QALLOW_PAGE_CREATED || change == QALLOW_PAGE_RENAMED;
        e = event_of(QALLOW_EVENT_PAGE);
        e.change = change;
        e.page = 300;
        e.kind = change == QALLOW_PAGE_CREATED ? QALLOW_FILE : 0;
        e.parent = is_named ? 77777 : 0;
        e.name = is_named ? "a name" : NULL;
        e.name_length = is_named ? 6 : 0;
        assert_round_trip(&e);
    }
    e = event_of(QALLOW_EVENT_DELTA);
    e.page = 1;
    e.bytes = UINT64_C(1) << 48;
    e.offset = 12345;
    e.changed = 7;
    assert_round_trip(&e);
    e = event_of(QALLOW_EVENT_COMMIT);
    e.epoch = 99;
    e.bytes = 3;
    e.digest[0] = UINT64_MAX;
    e.digest[1] = 5;
    assert_round_trip(&e);
    e = event_of(QALLOW_EVENT_RECOMPUTE);
    e.page = UINT64_MAX;
    e.change = 1;
    e.parent = 4;
    e.bytes = 4096;
    e.offset = 8;
    e.changed = 16;
    assert_round_trip(&e);
    e = event_of(QALLOW_EVENT_CHECKPOINT);
    e.exported = 8;
    e.name = "x.qckpt";
    e.name_length = 7;
    assert_round_trip(&e);
    static const uint32_t free_form[] = {QALLOW_EVENT_WATCHER, QALLOW_EVENT_PROGRAM,
                                         QALLOW_EVENT_USER, 63};
    for (size_t i = 0; i < 4; i++) {
        e = event_of(free_form[i]);
        e.data = (const uint8_t *)"\0any\xff";
        e.length = 5;
        assert_round_trip(&e);
    }
    e = event_of(64);
    uint8_t byte;
    assert_result(qallow_event_encode(&e, &byte, 1, NULL), QALLOW_E_ARGUMENT);
}

/* Whatever bytes: read as they are, or refused; what is read is written the same. */
static void test_hostile_bytes(void **state)
{
    uint64_t random = seed;
    for (int i = 0; i < 100000; i++) {
        struct qallow_event e = QALLOW_EVENT_INIT;
        uint8_t bytes[64], again[64];
        size_t used, length, size = next_random(&random) % sizeof bytes;
        for (size_t k = 0; k < sizeof bytes; k++)
            bytes[k] = (uint8_t)(next_random(&random) >> (next_random(&random) % 8 * 8));
        bytes[0] %= 10;
        bytes[9] %= 40; /* a length that may be right */
        if (next_random(&random) % 8)
            bytes[10] = bytes[11] = bytes[12] = 0;
        if (qallow_event_decode(bytes, size, &e, &used) != 0)
            continue;
        assert_true(used <= size);
        if (e.type < QALLOW_EVENT_WATCHER) {
            e.data = NULL;
            e.length = 0;
        }
        assert_ok(qallow_event_encode(&e, again, sizeof again, &length));
        assert_int_equal(length, used);
        assert_memory_equal(again, bytes, used);
    }
}

/* --- told --- */

/* What a handler has been told, as bytes: epoch, then the event. */
struct told {
    uint8_t *bytes;
    size_t length, count;
    uint32_t types[4096];
    struct qallow_store *store; /* to do something with, in some tests */
    uint64_t id, page;
    struct told *also;
};

static void tell(void *context, const struct qallow_event *event)
{
    struct told *told = context;
    size_t length = 0;
    (void)qallow_event_encode(event, NULL, 0, &length);
    told->bytes = realloc(told->bytes, told->length + 8 + length);
    memcpy(told->bytes + told->length, &event->epoch, 8);
    assert_ok(qallow_event_encode(event, told->bytes + told->length + 8, length, NULL));
    told->length += 8 + length;
    assert_true(told->count < 4096);
    told->types[told->count++] = event->type;
}

static void told_finish(struct told *told)
{
    free(told->bytes);
    *told = (struct told){0};
}

static void assert_told(struct told *told, size_t count, const uint32_t *types)
{
    assert_int_equal(told->count, count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(told->types[i], types[i]);
    told_finish(told);
}
#define TYPES(...)                                                                                 \
    sizeof((const uint32_t[]){__VA_ARGS__}) / 4, (const uint32_t[]) { __VA_ARGS__ }

static void test_subscribing(void **state)
{
    struct qallow_store *store = open_new("subscribe.tlog");
    uint64_t a = add_page(store, "a", "1", 1), b = add_page(store, "b", "2", 1), all, some, one;
    struct qallow_event_filter filter = QALLOW_EVENT_FILTER_INIT;
    struct told everything = {0}, commits = {0}, page = {0};
    struct qallow_txn *txn;

    assert_ok(qallow_subscribe(store, NULL, tell, &everything, &all));
    filter.types = QALLOW_EVENT_BIT(QALLOW_EVENT_COMMIT);
    assert_ok(qallow_subscribe(store, &filter, tell, &commits, &some));
    filter.types = 0;
    filter.page = b;
    assert_ok(qallow_subscribe(store, &filter, tell, &page, &one));
    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_write(txn, a, 0, "x", 1));
    assert_ok(qallow_page_write(txn, b, 0, "y", 1));
    assert_ok(qallow_txn_emit(txn, QALLOW_EVENT_PROGRAM, "hello", 5));
    assert_ok(qallow_page_rename(txn, b, 0, "c"));
    assert_int_equal(everything.count, 0);
    assert_ok(qallow_commit(txn, NULL));
    assert_told(&everything, TYPES(QALLOW_EVENT_PAGE, QALLOW_EVENT_DELTA, QALLOW_EVENT_DELTA,
                                   QALLOW_EVENT_COMMIT, QALLOW_EVENT_PROGRAM));
    assert_told(&commits, TYPES(QALLOW_EVENT_COMMIT));
    assert_told(&page, TYPES(QALLOW_EVENT_PAGE, QALLOW_EVENT_DELTA));

    assert_ok(qallow_begin(store, &txn)); /* what does not commit is not told */
    assert_ok(qallow_page_write(txn, a, 0, "z", 1));
    assert_ok(qallow_txn_emit(txn, QALLOW_EVENT_PROGRAM, "lost", 4));
    qallow_abort(txn);
    assert_int_equal(everything.count, 0);
    assert_ok(qallow_emit(store, QALLOW_EVENT_USER + 3, NULL, 0));
    assert_told(&everything, TYPES(QALLOW_EVENT_USER + 3));
    assert_result(qallow_emit(store, QALLOW_EVENT_COMMIT, NULL, 0), QALLOW_E_ARGUMENT);
    assert_result(qallow_emit(store, 64, NULL, 0), QALLOW_E_ARGUMENT);
    static uint8_t much[(512 << 10) + 1];
    assert_result(qallow_emit(store, QALLOW_EVENT_PROGRAM, much, sizeof much), QALLOW_E_LIMIT);
    assert_int_equal(everything.count, 0);

    assert_ok(qallow_unsubscribe(store, all));
    assert_result(qallow_unsubscribe(store, all), QALLOW_E_ARGUMENT);
    write_page(store, a, 0, "q", 1);
    assert_int_equal(everything.count, 0);
    assert_told(&commits, TYPES(QALLOW_EVENT_COMMIT));
    assert_ok(qallow_unsubscribe(store, some));
    assert_ok(qallow_unsubscribe(store, one));
    write_page(store, a, 0, "r", 1);
    assert_ok(qallow_subscribe(store, NULL, tell, &everything, &all)); /* from now on only */
    write_page(store, a, 0, "s", 1);
    assert_told(&everything, TYPES(QALLOW_EVENT_DELTA, QALLOW_EVENT_COMMIT));
    assert_ok(qallow_close(store));
}

/* A handler that commits, emits, and ends its own and another subscription. */
static void busy_handler(void *context, const struct qallow_event *event)
{
    struct told *told = context;
    tell(told, event);
    if (told->count == 1) {
        write_page(told->store, told->page, 0, "!", 1);
        assert_ok(qallow_emit(told->store, QALLOW_EVENT_PROGRAM, "x", 1));
        assert_int_equal(told->count, 1); /* told when this one is done */
        assert_ok(qallow_unsubscribe(told->store, told->also->id));
    }
    if (told->count == 3)
        assert_ok(qallow_unsubscribe(told->store, told->id));
}

static void test_handlers_that_act(void **state)
{
    struct qallow_store *store = open_new("act.tlog");
    struct told second = {0}, third = {0}, first = {.store = store, .also = &second};
    struct qallow_event_filter filter = QALLOW_EVENT_FILTER_INIT;
    first.page = add_page(store, "a", "1", 1);
    filter.types = ~QALLOW_EVENT_BIT(QALLOW_EVENT_DELTA);
    assert_ok(qallow_subscribe(store, &filter, busy_handler, &first, &first.id));
    assert_ok(qallow_subscribe(store, &filter, tell, &second, &second.id));
    assert_ok(qallow_subscribe(store, &filter, tell, &third, &third.id));
    write_page(store, first.page, 0, "2", 1);
    write_page(store, first.page, 0, "3", 1);
    assert_int_equal(second.count, 0);
    assert_told(&first, TYPES(QALLOW_EVENT_COMMIT, QALLOW_EVENT_COMMIT, QALLOW_EVENT_PROGRAM));
    assert_told(&third, TYPES(QALLOW_EVENT_COMMIT, QALLOW_EVENT_COMMIT, QALLOW_EVENT_PROGRAM,
                              QALLOW_EVENT_COMMIT));
    assert_ok(qallow_close(store));
}

/* Handlers that end subscriptions while they are told of an export, which is no commit. */
static void leaving_handler(void *context, const struct qallow_event *event)
{
    struct told *told = context;
    assert_int_equal(event->type, QALLOW_EVENT_CHECKPOINT);
    assert_int_equal(event->exported, 1);
    assert_int_equal(event->epoch, qallow_view_epoch(qallow_newest(told->store)));
    told->count++;
    if (told->also && told->also->id)
        assert_ok(qallow_unsubscribe(told->store, told->also->id));
    if (told->also)
        told->also->id = 0;
}

static void test_exports(void **state)
{
    struct qallow_store *store = open_new("exports.tlog");
    struct qallow_event_filter filter = QALLOW_EVENT_FILTER_INIT;
    char name[20];
    uint64_t page = add_page(store, "a", "1", 1);
    write_page(store, page, 0, "2", 1);
    filter.types = QALLOW_EVENT_BIT(QALLOW_EVENT_CHECKPOINT);
    for (int who = 0; who < 9; who++) { /* the first to be told of it ends one */
        struct told told[3] = {{.store = store}, {.store = store}, {.store = store}};
        for (int i = 0; i < 3; i++)
            assert_ok(qallow_subscribe(store, &filter, leaving_handler, &told[i], &told[i].id));
        told[who / 3].also = &told[who % 3];
        snprintf(name, sizeof name, "%d.qckpt", who);
        assert_ok(qallow_checkpoint_export(store, 1, path(name), 1));
        for (int i = 0; i < 3; i++) {
            assert_int_equal(told[i].count, i != who % 3 || i <= who / 3);
            if (told[i].id)
                assert_ok(qallow_unsubscribe(store, told[i].id));
        }
    }
    assert_ok(qallow_close(store));
}

/* --- again --- */

static void assert_replay(struct qallow_store *store, uint64_t from, uint64_t to,
                          const struct told *live)
{
    struct told again = {0};
    assert_ok(qallow_events_replay(store, from, to, NULL, tell, &again));
    assert_int_equal(again.count, live->count);
    assert_int_equal(again.length, live->length);
    assert_memory_equal(again.bytes, live->bytes, live->length);
    told_finish(&again);
}

static uint64_t newest(struct qallow_store *store)
{
    return qallow_view_epoch(qallow_newest(store));
}

/* Random transactions; the pages are `pages`, 0 where there is none. */
static void random_transaction(struct qallow_store *store, uint64_t *pages, uint64_t *random)
{
    struct qallow_page_options options = QALLOW_PAGE_OPTIONS_INIT;
    struct qallow_txn *txn;
    char name[24];
    assert_ok(qallow_begin(store, &txn));
    for (uint64_t n = next_random(random) % 5; n > 0; n--) {
        uint64_t *page = &pages[next_random(random) % 8], word = next_random(random);
        snprintf(name, sizeof name, "n%llu", (unsigned long long)next_random(random));
        options.mode = (uint32_t)(word & 0777);
        if (!*page)
            *page = create_page(txn, name, 0, QALLOW_RAW);
        else if (word % 7 == 0)
            assert_ok(qallow_page_rename(txn, *page, 0, name));
        else if (word % 7 == 1)
            assert_ok(qallow_page_set_attributes(txn, *page, &options));
        else if (word % 7 == 2) {
            assert_ok(qallow_page_free(txn, *page));
            *page = 0;
        } else
            assert_ok(qallow_page_write(txn, *page, 0, &word, 1 + word % 8));
        if (word % 3 == 0)
            assert_ok(qallow_txn_emit(txn, QALLOW_EVENT_PROGRAM, name, strlen(name)));
    }
    assert_ok(qallow_commit(txn, NULL));
}

static void test_live_is_replay(void **state)
{
    struct qallow_store *store = open_new("replay.tlog");
    uint64_t pages[8] = {0}, random = seed, id;
    struct told live = {0};
    struct qallow_event_filter filter = QALLOW_EVENT_FILTER_INIT;
    assert_ok(qallow_subscribe(store, NULL, tell, &live, &id));
    for (int i = 0; i < 200; i++) {
        random_transaction(store, pages, &random);
        if (i % 20 == 7)
            assert_ok(qallow_emit(store, QALLOW_EVENT_USER, &i, sizeof i));
    }
    assert_replay(store, 0, newest(store), &live);
    assert_replay(store, 1, newest(store), &live);
    assert_result(qallow_events_replay(store, 1, newest(store) + 1, NULL, tell, &live),
                  QALLOW_E_EPOCH_NOT_FOUND);
    uint64_t last = newest(store);
    assert_ok(qallow_close(store));
    store = open_again("replay.tlog");
    assert_replay(store, 1, last, &live);

    struct told some = {0}, split = {0}; /* in pieces it is the same */
    filter.types = QALLOW_EVENT_BIT(QALLOW_EVENT_PROGRAM) | QALLOW_EVENT_BIT(QALLOW_EVENT_USER);
    assert_ok(qallow_events_replay(store, 1, last, &filter, tell, &some));
    for (uint64_t from = 1, to; from <= last; from = to + 1) {
        to = from + next_random(&random) % 9;
        to = to < last ? to : last;
        assert_ok(qallow_events_replay(store, from, to, &filter, tell, &split));
    }
    assert_true(some.count > 0);
    assert_int_equal(split.length, some.length);
    assert_memory_equal(split.bytes, some.bytes, some.length);
    told_finish(&some);
    told_finish(&split);
    told_finish(&live);
    assert_ok(qallow_verify(store, 1));
    assert_ok(qallow_close(store));
}

/* Another handle that follows is told the same, as far as it is recorded. */
static void test_following(void **state)
{
    struct qallow_store *store = open_new("follow.tlog"), *reader;
    uint64_t a = add_page(store, "a", "1", 1), id, now;
    struct told seen = {0};
    assert_ok(qallow_sync(store));
    assert_ok(qallow_open(path("follow.tlog"), NULL, &reader));
    assert_ok(qallow_subscribe(reader, NULL, tell, &seen, &id));
    write_page(store, a, 0, "2", 1);
    write_page(store, a, 0, "3", 1);
    assert_ok(qallow_sync(store));
    assert_int_equal(seen.count, 0);
    assert_ok(qallow_refresh(reader, &now));
    assert_int_equal(now, 3);
    assert_told(&seen, TYPES(QALLOW_EVENT_DELTA, QALLOW_EVENT_COMMIT, QALLOW_EVENT_DELTA,
                             QALLOW_EVENT_COMMIT));
    assert_result(qallow_emit(reader, QALLOW_EVENT_PROGRAM, "x", 1), QALLOW_E_STATE);
    assert_ok(qallow_close(reader));
    assert_ok(qallow_close(store));
}

/* Which types go into the log; those of the graph and of exports among them. */
static void test_recorded(void **state)
{
    struct qallow_store *store = open_new("recorded.tlog");
    struct qallow_graph_options options = QALLOW_GRAPH_OPTIONS_INIT;
    struct qallow_event_filter filter = QALLOW_EVENT_FILTER_INIT;
    struct counted sum = {.function = sum_bytes};
    uint64_t a = add_page(store, "a", "1", 1), b = add_page(store, "b", "", 0), id;
    struct told live = {0}, again = {0};
    struct qallow_graph *graph;
    options.events = 1;
    assert_ok(qallow_graph_create(store, &options, &graph));
    add_node(graph, b, "sum", &sum, INPUTS(a));
    filter.types = QALLOW_EVENT_BIT(QALLOW_EVENT_RECOMPUTE) |
                   QALLOW_EVENT_BIT(QALLOW_EVENT_CHECKPOINT) |
                   QALLOW_EVENT_BIT(QALLOW_EVENT_PROGRAM);
    assert_ok(qallow_subscribe(store, &filter, tell, &live, &id));
    assert_ok(qallow_graph_update(graph, NULL)); /* told, and not recorded */
    assert_ok(qallow_checkpoint_export(store, newest(store), path("one.qckpt"), 1));
    assert_told(&live, TYPES(QALLOW_EVENT_RECOMPUTE, QALLOW_EVENT_CHECKPOINT));
    assert_ok(qallow_events_replay(store, 1, newest(store), &filter, tell, &again));
    assert_int_equal(again.count, 0);

    assert_result(qallow_events_record(store, QALLOW_EVENT_BIT(QALLOW_EVENT_COMMIT)),
                  QALLOW_E_ARGUMENT);
    assert_ok(qallow_events_record(store, filter.types));
    uint64_t from = newest(store) + 1;
    write_page(store, a, 0, "2", 1);
    assert_ok(qallow_checkpoint_export(store, from, path("two.qckpt"), 1));
    assert_ok(qallow_emit(store, QALLOW_EVENT_PROGRAM, "end", 3));
    assert_ok(qallow_events_record(store, 0));
    assert_ok(qallow_events_replay(store, from, newest(store), &filter, tell, &again));
    assert_int_equal(again.length, live.length);
    assert_memory_equal(again.bytes, live.bytes, live.length);
    assert_ok(qallow_emit(store, QALLOW_EVENT_PROGRAM, "lost", 4)); /* told, and gone */
    assert_told(&live, TYPES(QALLOW_EVENT_RECOMPUTE, QALLOW_EVENT_CHECKPOINT, QALLOW_EVENT_PROGRAM,
                             QALLOW_EVENT_PROGRAM));
    told_finish(&again);
    qallow_graph_destroy(graph);
    assert_ok(qallow_verify(store, 1));
    assert_ok(qallow_close(store));
}

/* --- threads, memory --- */

enum { THREADS = 4, COMMITS = 50 };

struct ordered {
    uint64_t last, commits;
};
static void see_in_order(void *context, const struct qallow_event *event)
{
    struct ordered *o = context;
    if (event->type != QALLOW_EVENT_COMMIT)
        return;
    assert_int_equal(event->epoch, o->last + 1);
    o->last = event->epoch;
    o->commits++;
}

struct committer {
    struct qallow_store *store;
    uint64_t page;
};
static void *commit_often(void *context)
{
    struct committer *c = context;
    for (int i = 0; i < COMMITS; i++)
        write_page(c->store, c->page, 0, &i, sizeof i);
    return NULL;
}

static void test_threads(void **state)
{
    struct qallow_store *store = open_new("threads.tlog");
    struct committer committers[THREADS];
    struct ordered seen = {0};
    pthread_t threads[THREADS];
    char name[2] = "a";
    uint64_t id, word = UINT64_MAX;
    for (int i = 0; i < THREADS; i++, name[0]++)
        committers[i] = (struct committer){store, add_page(store, name, &word, sizeof word)};
    seen.last = newest(store);
    assert_ok(qallow_subscribe(store, NULL, see_in_order, &seen, &id));
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, commit_often, &committers[i]), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(seen.commits, THREADS * COMMITS);
    assert_ok(qallow_close(store));
}

static long allocations_left;
static int fail_at_zero(size_t size) { return allocations_left-- == 0; }

/* A commit that has landed has landed, whether or not there is memory to tell of it: then it is
 * told with the next one. */
static void test_memory(void **state)
{
    struct qallow_store *store = open_new("memory.tlog");
    uint64_t a = add_page(store, "a", "12345678", 8), id, before;
    struct ordered seen = {.last = newest(store)};
    int rc = QALLOW_E_NO_MEMORY, was_late = 0;
    assert_ok(qallow_subscribe(store, NULL, see_in_order, &seen, &id));
    for (long n = 0; rc != 0 || allocations_left < 0; n++) {
        struct qallow_txn *txn;
        before = newest(store);
        assert_ok(qallow_begin(store, &txn));
        assert_ok(qallow_page_write(txn, a, 0, &n, sizeof n));
        allocations_left = n;
        qr_set_allocation_hook(fail_at_zero);
        rc = qallow_commit(txn, NULL);
        qr_set_allocation_hook(NULL);
        assert_int_equal(newest(store), before + (rc == 0));
        was_late |= seen.last < newest(store);
        write_page(store, a, 0, "again", 5);
        assert_int_equal(seen.last, newest(store));
    }
    assert_true(was_late);
    assert_ok(qallow_close(store));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_hostile_bytes),
        cmocka_unit_test(test_subscribing),    cmocka_unit_test(test_handlers_that_act),
        cmocka_unit_test(test_live_is_replay), cmocka_unit_test(test_following),
        cmocka_unit_test(test_recorded),       cmocka_unit_test(test_threads),
        cmocka_unit_test(test_memory),         cmocka_unit_test(test_exports),
    };
    if (support_begin() != 0)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed == 0 && support_end() != 0)
        return 1;
    return failed;
}
