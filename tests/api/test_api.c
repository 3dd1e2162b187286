/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public C API, as a program outside would use it. A random history is played against a model
 * in memory and every epoch is compared; readers run beside commits. Errors: test_errors.c,
 * statistics: test_stats.c.
 *
 * QALLOW_SEED=n repeats a run; QALLOW_API_STEPS=n makes the random history longer.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "tests/api/support.h"

#include "runtime/api.h"
#include "runtime/state_internal.h"

/* --- the basics --- */

/* dir/file with "hello world", one epoch. */
static void first_epoch(struct qallow_store *store, uint64_t *dir, uint64_t *file)
{
    struct qallow_page info = QALLOW_PAGE_INIT;
    struct qallow_txn *txn;
    uint64_t epoch;
    char bytes[8];

    assert_ok(qallow_begin(store, &txn));
    *dir = create_page(txn, "dir", 0, QALLOW_DIRECTORY);
    *file = create_page(txn, "file", *dir, QALLOW_FILE);
    assert_ok(qallow_page_write(txn, *file, 0, "hello world", 11));
    assert_ok(qallow_txn_read(txn, *file, 6, bytes, 5));
    assert_memory_equal(bytes, "world", 5);
    assert_result(qallow_page_lookup(qallow_newest(store), "dir/file", &info),
                  QALLOW_E_PAGE_NOT_FOUND); /* not committed */
    assert_ok(qallow_commit(txn, &epoch));
    assert_int_equal(epoch, 1);
}

/* The file is edited, renamed and given attributes, its directory freed. */
static void second_epoch(struct qallow_store *store, uint64_t dir, uint64_t file)
{
    struct qallow_page_options attributes = QALLOW_PAGE_OPTIONS_INIT;
    struct qallow_page info = QALLOW_PAGE_INIT;
    struct qallow_txn *txn;
    uint64_t epoch;
    char bytes[64];
    size_t length;

    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_splice(txn, file, 5, 6, ", there", 7));
    assert_ok(qallow_page_rename(txn, file, 0, "moved"));
    attributes.mode = 0640;
    attributes.mtime_ns = -5;
    attributes.extra = "xyz";
    attributes.extra_length = 3;
    assert_ok(qallow_page_set_attributes(txn, file, &attributes));
    assert_ok(qallow_page_free(txn, dir));
    assert_ok(qallow_commit(txn, &epoch));
    assert_int_equal(epoch, 2);

    assert_ok(qallow_page_lookup(qallow_newest(store), "moved", &info));
    assert_int_equal(info.id, file);
    assert_int_equal(info.bytes, 12);
    assert_int_equal(info.mode, 0640);
    assert_true(info.mtime_ns == -5);
    assert_int_equal(info.version, 2);
    assert_ok(qallow_page_read(qallow_newest(store), file, 0, bytes, 12));
    assert_memory_equal(bytes, "hello, there", 12);
    assert_ok(qallow_page_extra(qallow_newest(store), file, bytes, sizeof bytes, &length));
    assert_int_equal(length, 3);
    assert_memory_equal(bytes, "xyz", 3);
}

/* The view shows the first epoch. */
static void check_first_epoch(struct qallow_view *view, uint64_t file)
{
    struct qallow_page info = QALLOW_PAGE_INIT;
    char bytes[16], name[64];
    size_t length;

    assert_int_equal(qallow_view_epoch(view), 1);
    assert_ok(qallow_page_lookup(view, "dir/file", &info));
    assert_ok(qallow_page_path(view, info.id, name, sizeof name, &length));
    assert_string_equal(name, "dir/file");
    assert_ok(qallow_page_read(view, file, 0, bytes, 11));
    assert_memory_equal(bytes, "hello world", 11);
}

static void check_history(struct qallow_store *store)
{
    struct qallow_epoch about = QALLOW_EPOCH_INIT;
    struct qallow_page info = QALLOW_PAGE_INIT;
    struct qallow_view *old;
    uint64_t epoch;

    assert_ok(qallow_view_at(store, 0, &old));
    assert_result(qallow_page_next(old, 0, &info), QALLOW_E_PAGE_NOT_FOUND);
    qallow_view_destroy(old);
    assert_ok(qallow_epoch_get(store, 2, &about));
    assert_int_equal(about.time_ns, 2); /* logical clock */
    assert_ok(qallow_label(store, "second", 0));
    assert_ok(qallow_epoch_of_label(store, "second", &epoch));
    assert_int_equal(epoch, 2);
    assert_ok(qallow_epoch_at_time(store, 1, &epoch));
    assert_int_equal(epoch, 1);
    assert_result(qallow_epoch_of_label(store, "third", &epoch), QALLOW_E_EPOCH_NOT_FOUND);
    assert_result(qallow_view_at(store, 3, &old), QALLOW_E_EPOCH_NOT_FOUND);
    assert_non_null(strstr(qallow_error_detail(), "2")); /* says the last one */
    assert_null(old);
}

static void test_walkthrough(void **state)
{
    struct qallow_store *store = open_new("walk.tlog");
    struct qallow_view *old, *snapshot;
    uint64_t dir, file;

    first_epoch(store, &dir, &file);
    assert_ok(qallow_snapshot(store, &snapshot));
    second_epoch(store, dir, file);
    assert_ok(qallow_view_at(store, 1, &old));
    check_first_epoch(snapshot, file);
    check_first_epoch(old, file);
    qallow_view_destroy(snapshot);
    qallow_view_destroy(old);
    check_history(store);
    assert_ok(qallow_verify(store, 2));
    assert_ok(qallow_close(store));
}

static uint64_t log_bytes(struct qallow_store *store)
{
    struct qallow_stats stats = QALLOW_STATS_INIT;
    assert_ok(qallow_stats_get(store, &stats));
    return stats.log_bytes;
}

/* Only what differs is logged, and nothing if nothing does. */
static void test_unchanged_bytes(void **state)
{
    enum { SIZE = 1 << 20 };
    struct qallow_store *store = open_new("same.tlog");
    uint8_t *bytes = malloc(SIZE);
    struct qallow_txn *txn;
    uint64_t page, epoch, random = seed, before;

    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = (uint8_t)next_random(&random);
    page = store_with_page(store, bytes, SIZE);
    before = log_bytes(store);

    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_write(txn, page, 0, bytes, SIZE));
    assert_ok(qallow_commit(txn, &epoch));
    assert_int_equal(epoch, 1);
    assert_int_equal(log_bytes(store), before);

    bytes[SIZE / 2] ^= 1;
    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_write(txn, page, 0, bytes, SIZE));
    assert_ok(qallow_commit(txn, &epoch));
    assert_int_equal(epoch, 2);
    assert_true(log_bytes(store) - before < 300);

    /* Grown and cut again within one transaction: nothing differs. Zeros take no space. */
    before = log_bytes(store);
    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_resize(txn, page, (uint64_t)1 << 40));
    assert_ok(qallow_page_resize(txn, page, SIZE));
    assert_ok(qallow_commit(txn, &epoch));
    assert_int_equal(epoch, 2);
    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_resize(txn, page, SIZE + ((uint64_t)8 << 20)));
    assert_ok(qallow_commit(txn, &epoch));
    assert_int_equal(epoch, 3);
    assert_true(log_bytes(store) - before < 400);
    assert_ok(qallow_verify(store, 1));
    assert_ok(qallow_close(store));
    free(bytes);
}

/* --- random histories against a model --- */

enum { MODEL_PAGES = 12, MODEL_SIZE = 6000 };

struct model_page {
    uint64_t id; /* 0: none */
    size_t size;
    uint8_t bytes[MODEL_SIZE];
};
struct model {
    struct model_page pages[MODEL_PAGES];
};

static void random_bytes(uint64_t *random, uint8_t *bytes, size_t length)
{
    int sparse = next_random(random) % 3 == 0;
    for (size_t i = 0; i < length; i++)
        bytes[i] = sparse ? (next_random(random) % 16 ? 0 : 'x') : (uint8_t)next_random(random);
}

/* One random operation on one page of both. */
static void random_operation(struct model *model, struct qallow_txn *txn, uint64_t *random)
{
    size_t slot = next_random(random) % MODEL_PAGES;
    struct model_page *page = &model->pages[slot];
    uint8_t bytes[MODEL_SIZE];
    char name[16];
    size_t offset, removed, length;

    snprintf(name, sizeof name, "p%zu", slot);
    if (!page->id) {
        page->id = create_page(txn, name, 0, QALLOW_RAW);
        page->size = 0;
        return;
    }
    offset = next_random(random) % (page->size + 1);
    switch (next_random(random) % 8) {
    case 0:
        assert_ok(qallow_page_free(txn, page->id));
        page->id = 0;
        return;
    case 1:
        length = next_random(random) % MODEL_SIZE;
        assert_ok(qallow_page_resize(txn, page->id, length));
        if (length > page->size)
            memset(page->bytes + page->size, 0, length - page->size);
        page->size = length;
        return;
    case 2:
    case 3: /* splice */
        removed = next_random(random) % (page->size - offset + 1);
        length = next_random(random) % 300;
        if (page->size - removed + length > MODEL_SIZE)
            length = 0;
        random_bytes(random, bytes, length);
        assert_ok(qallow_page_splice(txn, page->id, offset, removed, bytes, length));
        memmove(page->bytes + offset + length, page->bytes + offset + removed,
                page->size - offset - removed);
        memcpy(page->bytes + offset, bytes, length);
        page->size += length - removed;
        return;
    default: /* write, of partly equal bytes */
        length = next_random(random) % (next_random(random) % 4 ? 200 : MODEL_SIZE);
        if (offset + length > MODEL_SIZE)
            length = MODEL_SIZE - offset;
        random_bytes(random, bytes, length);
        if (length > 10 && offset + length <= page->size)
            memcpy(bytes, page->bytes + offset, length - 10);
        assert_ok(qallow_page_write(txn, page->id, offset, bytes, length));
        memcpy(page->bytes + offset, bytes, length);
        if (offset + length > page->size)
            page->size = offset + length;
        return;
    }
}

static void compare_model(const struct model *model, struct qallow_view *view)
{
    struct qallow_page info = QALLOW_PAGE_INIT;
    uint8_t bytes[MODEL_SIZE];
    size_t expected = 0, found = 0;

    for (size_t i = 0; i < MODEL_PAGES; i++) {
        const struct model_page *page = &model->pages[i];
        char name[16];
        snprintf(name, sizeof name, "p%zu", i);
        if (!page->id) {
            assert_int_equal(qallow_page_lookup(view, name, &info), QALLOW_E_PAGE_NOT_FOUND);
            continue;
        }
        expected++;
        assert_ok(qallow_page_lookup(view, name, &info));
        assert_int_equal(info.id, page->id);
        assert_int_equal(info.bytes, page->size);
        assert_ok(qallow_page_read(view, page->id, 0, bytes, page->size));
        assert_memory_equal(bytes, page->bytes, page->size);
    }
    for (info.id = 0; qallow_page_next(view, info.id, &info) == 0;)
        found++;
    assert_int_equal(found, expected);
}

static void compare_transaction(const struct model *model, struct qallow_txn *txn)
{
    uint8_t bytes[MODEL_SIZE];
    for (size_t i = 0; i < MODEL_PAGES; i++)
        if (model->pages[i].id) {
            assert_ok(qallow_txn_read(txn, model->pages[i].id, 0, bytes, model->pages[i].size));
            assert_memory_equal(bytes, model->pages[i].bytes, model->pages[i].size);
        }
}

static struct qallow_store *open_random(uint64_t memory)
{
    struct qallow_options options = QALLOW_OPTIONS_INIT;
    struct qallow_store *store;
    options.writable = 1;
    options.logical_clock = 1;
    options.sync = QALLOW_SYNC_NONE;
    options.max_memory = memory;
    assert_ok(qallow_open(path("random.tlog"), &options, &store));
    return store;
}

/* What is in memory, what the log says of the newest epoch, and the model are the same. */
static void compare_newest(const struct model *now, struct qallow_store *store, uint64_t memory)
{
    const struct qr_state *held = qr_store_state(store->store);
    struct qallow_view *view;
    compare_model(now, qallow_newest(store));
    assert_true(memory == 0 || held->held_bytes <= memory);
    assert_ok(qallow_snapshot(store, &view));
    compare_model(now, view);
    qallow_view_destroy(view);
}

/* `memory`: for content, as in struct qallow_options. */
static void random_history(uint64_t memory)
{
    const char *text = getenv("QALLOW_API_STEPS");
    size_t steps = text ? strtoul(text, NULL, 10) : 150;
    struct model *models = calloc(steps + 1, sizeof *models), *now = calloc(1, sizeof *now);
    assert_ok(qallow_close(open_new("random.tlog")));
    struct qallow_store *store = open_random(memory);
    struct qallow_view *view;
    uint64_t random = seed, newest = 0;
    int was_held = 0;

    for (size_t i = 0; i < steps; i++) {
        struct model *after = malloc(sizeof *after);
        struct qallow_txn *txn;
        uint64_t epoch;
        *after = *now;
        assert_ok(qallow_begin(store, &txn));
        for (size_t n = next_random(&random) % 12; n > 0; n--)
            random_operation(after, txn, &random);
        if (next_random(&random) % 3 == 0) /* not always: what is read is not only written over */
            compare_transaction(after, txn);
        if (next_random(&random) % 8 == 0) {
            qallow_abort(txn);
        } else {
            assert_ok(qallow_commit(txn, &epoch));
            assert_true(epoch == newest || epoch == newest + 1);
            *now = *after;
            newest = epoch;
            models[newest] = *now;
        }
        free(after);
        compare_newest(now, store, memory);
        was_held |= qr_store_state(store->store)->held_bytes > 0;
        if (i % 40 == 39) { /* from the log again */
            assert_ok(qallow_close(store));
            store = open_random(memory);
        }
    }
    assert_true(was_held || memory == 1);
    assert_ok(qallow_verify(store, 2));
    for (uint64_t epoch = 0; epoch <= newest; epoch++) {
        assert_ok(qallow_view_at(store, epoch, &view));
        compare_model(&models[epoch], view);
        qallow_view_destroy(view);
    }
    assert_ok(qallow_close(store));
    free(models);
    free(now);
}

static void test_random_history(void **state) { random_history(0); }

/* Not all pages fit: some are dropped for others. */
static void test_random_history_in_little_memory(void **state) { random_history(12000); }

static void test_random_history_without_memory(void **state) { random_history(1); }

/* A page in many places of the log is written over as a whole: then it is in one place again, in
 * copies of the state too. */
static void test_written_over_as_a_whole(void **state)
{
    enum { SIZE = 4096 };
    static const struct {
        size_t at, length;
    } steps[] = {{1000, 64}, {2000, 64}, {0, SIZE}, {0, SIZE}, {10, 20}};
    uint8_t bytes[SIZE] = "as it was", found[SIZE];
    struct qallow_store *store = open_new("whole.tlog");
    struct qallow_view *view;
    struct qallow_txn *txn;
    uint64_t page = store_with_page(store, bytes, SIZE), random = seed;

    for (size_t step = 0; step < sizeof steps / sizeof *steps; step++) {
        size_t at = steps[step].at;
        for (size_t i = 0; i < steps[step].length; i++)
            bytes[at + i] = (uint8_t)next_random(&random);
        assert_ok(qallow_begin(store, &txn));
        assert_ok(qallow_page_write(txn, page, at, bytes + at, steps[step].length));
        assert_ok(qallow_commit(txn, NULL));
        assert_ok(qallow_snapshot(store, &view));
        assert_ok(qallow_page_read(view, page, 0, found, SIZE));
        assert_memory_equal(found, bytes, SIZE);
        qallow_view_destroy(view);
    }
    assert_ok(qallow_verify(store, 1));
    assert_ok(qallow_close(store));
}

/* --- many writes at once --- */

enum { TWIN_PAGES = 40, TWIN_SIZE = 1000, TWIN_WRITES = 300 };

static void make_pages(struct qallow_store *store, uint64_t *pages)
{
    static const uint8_t zeros[TWIN_SIZE];
    struct qallow_txn *txn;
    char name[32];
    assert_ok(qallow_begin(store, &txn));
    for (int i = 0; i < TWIN_PAGES; i++) {
        snprintf(name, sizeof name, "page%d", i);
        pages[i] = create_page(txn, name, 0, QALLOW_RAW);
        assert_ok(qallow_page_write(txn, pages[i], 0, zeros, sizeof zeros));
    }
    assert_ok(qallow_commit(txn, NULL));
}

/* Over each other, over whole pages, empty, and beyond ends. */
static void random_writes(struct qallow_write *writes, const uint64_t *pages, const uint8_t *bytes,
                          uint64_t *random)
{
    for (int i = 0; i < TWIN_WRITES; i++) {
        uint64_t r = next_random(random);
        size_t length = r % 8 == 0 ? TWIN_SIZE : (size_t)(r >> 8) % 80;
        writes[i] = (struct qallow_write){.page = pages[(r >> 16) % TWIN_PAGES],
                                          .offset = r % 8 ? (r >> 32) % (TWIN_SIZE + 1) : 0,
                                          .bytes = bytes + (r >> 48) % TWIN_SIZE,
                                          .length = length};
    }
}

/* Many writes in one call make what as many calls make. */
static void test_writes_at_once(void **state)
{
    struct qallow_store *stores[2] = {open_new("at_once.tlog"), open_new("in_turn.tlog")};
    struct qallow_epoch epochs[2] = {QALLOW_EPOCH_INIT, QALLOW_EPOCH_INIT};
    struct qallow_write writes[TWIN_WRITES];
    struct qallow_txn *txns[2];
    uint64_t pages[2][TWIN_PAGES], random = seed, epoch;
    uint8_t bytes[2 * TWIN_SIZE];
    size_t made;

    for (int i = 0; i < 2; i++)
        make_pages(stores[i], pages[i]);
    for (int round = 0; round < 20; round++) {
        random_bytes(&random, bytes, sizeof bytes);
        random_writes(writes, pages[0], bytes, &random);
        for (int i = 0; i < 2; i++)
            assert_ok(qallow_begin(stores[i], &txns[i]));
        assert_ok(qallow_pages_write(txns[0], writes, TWIN_WRITES, &made));
        assert_int_equal(made, TWIN_WRITES);
        for (const struct qallow_write *w = writes; w < writes + TWIN_WRITES; w++)
            assert_ok(qallow_page_write(txns[1], w->page, w->offset, w->bytes, w->length));
        for (int i = 0; i < 2; i++) {
            assert_ok(qallow_commit(txns[i], &epoch));
            assert_ok(qallow_epoch_get(stores[i], epoch, &epochs[i]));
        }
        assert_memory_equal(&epochs[0], &epochs[1], sizeof *epochs);
    }
    for (int i = 0; i < 2; i++)
        assert_ok(qallow_close(stores[i]));
}

/* The first that fails ends it; those before it are made. */
static void test_writes_that_fail(void **state)
{
    struct qallow_store *store = open_new("at_once_fails.tlog");
    uint8_t found[4];
    uint64_t page = store_with_page(store, "....", 4);
    struct qallow_txn *txn;
    size_t made = 99;

    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_pages_write(txn, NULL, 0, &made));
    assert_int_equal(made, 0);
    const struct qallow_write no_page[] = {
        {page, 0, "a", 1}, {page, 1, "b", 1}, {page + 7, 0, "c", 1}, {page, 3, "d", 1}};
    assert_result(qallow_pages_write(txn, no_page, 4, &made), QALLOW_E_PAGE_NOT_FOUND);
    assert_int_equal(made, 2);
    const struct qallow_write behind_end[] = {{page, 2, "e", 1}, {page, 9, "f", 1}};
    assert_result(qallow_pages_write(txn, behind_end, 2, &made), QALLOW_E_INVALID_DELTA);
    assert_int_equal(made, 1);
    const struct qallow_write no_bytes[] = {{page, 0, "x", 1}, {page, 0, NULL, 1}};
    assert_result(qallow_pages_write(txn, no_bytes, 2, &made), QALLOW_E_ARGUMENT);
    assert_int_equal(made, 0);
    assert_result(qallow_pages_write(txn, NULL, 1, NULL), QALLOW_E_ARGUMENT);
    assert_ok(qallow_commit(txn, NULL));
    assert_ok(qallow_page_read(qallow_newest(store), page, 0, found, 4));
    assert_memory_equal(found, "abe.", 4);
    assert_ok(qallow_close(store));
}

/* --- checkpoints --- */

/* What is written in a transaction is compressed where the store is told to. */
static void test_compressed(void **state)
{
    enum { SIZE = 1 << 20 };
    struct qallow_options options = QALLOW_OPTIONS_INIT;
    struct qallow_stats stats = QALLOW_STATS_INIT;
    struct qallow_store *store;
    struct qallow_txn *txn;
    uint8_t *bytes = malloc(SIZE), *back = malloc(SIZE);

    options.writable = options.create = 1;
    options.compress_level = 1;
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = (uint8_t)(i / 7 % 11);
    assert_ok(qallow_open(path("compressed.tlog"), &options, &store));
    assert_ok(qallow_begin(store, &txn));
    uint64_t page = create_page(txn, "a", 0, QALLOW_RAW);
    assert_ok(qallow_page_write(txn, page, 0, bytes, SIZE));
    assert_ok(qallow_commit(txn, NULL));
    assert_ok(qallow_begin(store, &txn));
    memset(bytes + 1000, 'x', 200000);
    assert_ok(qallow_page_write(txn, page, 1000, bytes + 1000, 200000));
    assert_ok(qallow_commit(txn, NULL));
    assert_ok(qallow_stats_get(store, &stats));
    assert_true(stats.log_bytes < SIZE / 4);
    assert_ok(qallow_close(store));
    assert_ok(qallow_open(path("compressed.tlog"), NULL, &store));
    assert_ok(qallow_page_read(qallow_newest(store), page, 0, back, SIZE));
    assert_memory_equal(bytes, back, SIZE);
    assert_ok(qallow_verify(store, 1));
    assert_ok(qallow_close(store));
    free(bytes);
    free(back);
}

static void test_checkpoint(void **state)
{
    struct qallow_store *store = open_new("export.tlog"), *file;
    struct qallow_stats stats = QALLOW_STATS_INIT, of_file = QALLOW_STATS_INIT;
    struct qallow_txn *txn;
    uint64_t page = store_with_page(store, "first", 5);
    char bytes[16];

    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_write(txn, page, 0, "second", 6));
    assert_ok(qallow_commit(txn, NULL));
    unlink(path("two.qckpt"));
    assert_ok(qallow_checkpoint_export(store, 2, path("two.qckpt"), 0));
    assert_result(qallow_checkpoint_export(store, 1, path("two.qckpt"), 0), QALLOW_E_CANNOT_CREATE);
    assert_result(qallow_checkpoint_export(store, 9, path("nine.qckpt"), 0),
                  QALLOW_E_EPOCH_NOT_FOUND);
    assert_int_equal(access(path("nine.qckpt"), F_OK), -1);
    assert_ok(qallow_stats_get(store, &stats));
    assert_ok(qallow_close(store));

    assert_ok(qallow_open(path("two.qckpt"), NULL, &file));
    assert_ok(qallow_stats_get(file, &of_file));
    assert_int_equal(of_file.first_epoch, 2);
    assert_int_equal(of_file.last_epoch, 2);
    assert_memory_equal(of_file.digest, stats.digest, sizeof stats.digest);
    assert_ok(qallow_page_read(qallow_newest(file), page, 0, bytes, 6));
    assert_memory_equal(bytes, "second", 6);
    assert_ok(qallow_verify(file, 1));
    assert_ok(qallow_close(file));
}

/* A reader in the same process sees what the writer commits. */
static void test_refresh(void **state)
{
    struct qallow_store *writer = open_new("live.tlog"), *reader;
    struct qallow_txn *txn;
    uint64_t page = store_with_page(writer, "one", 3), newest = 0;
    char bytes[8];

    assert_ok(qallow_sync(writer));
    assert_ok(qallow_open(path("live.tlog"), NULL, &reader));
    assert_ok(qallow_page_read(qallow_newest(reader), page, 0, bytes, 3));
    assert_memory_equal(bytes, "one", 3);
    assert_result(qallow_begin(reader, &txn), QALLOW_E_STATE);
    assert_result(qallow_label(reader, "x", 0), QALLOW_E_STATE);

    assert_ok(qallow_begin(writer, &txn));
    assert_ok(qallow_page_write(txn, page, 0, "two", 3));
    assert_ok(qallow_commit(txn, NULL));
    assert_ok(qallow_close(writer)); /* durable now */
    assert_ok(qallow_refresh(reader, &newest));
    assert_int_equal(newest, 2);
    assert_ok(qallow_page_read(qallow_newest(reader), page, 0, bytes, 3));
    assert_memory_equal(bytes, "two", 3);
    assert_ok(qallow_close(reader));
}

/* --- threads --- */

enum { SHARED_SIZE = 100000, READERS = 3, COMMITS = 120 };

struct shared {
    struct qallow_store *store;
    uint64_t pages[2];
    atomic_int stop;
    atomic_int failures;
    atomic_uint reads;
};

static int all_equal(const uint8_t *bytes, size_t length)
{
    return length == 0 || memcmp(bytes, bytes + 1, length - 1) == 0;
}

/* One call on the newest view is of one epoch; two calls on a snapshot are too. */
static int read_once(struct shared *s, uint8_t *a, uint8_t *b)
{
    struct qallow_view *snapshot, *old;
    uint64_t epoch;
    int ok = qallow_page_read(qallow_newest(s->store), s->pages[0], 0, a, SHARED_SIZE) == 0 &&
             all_equal(a, SHARED_SIZE);

    if (qallow_snapshot(s->store, &snapshot) != 0)
        return 0;
    epoch = qallow_view_epoch(snapshot);
    ok = ok && qallow_page_read(snapshot, s->pages[0], 0, a, SHARED_SIZE) == 0 &&
         qallow_page_read(snapshot, s->pages[1], 0, b, SHARED_SIZE) == 0 &&
         memcmp(a, b, SHARED_SIZE) == 0 && all_equal(a, SHARED_SIZE) && a[0] == (uint8_t)epoch;
    qallow_view_destroy(snapshot);
    if (!ok || qallow_view_at(s->store, 1 + epoch / 2, &old) != 0)
        return 0;
    ok = qallow_page_read(old, s->pages[1], 7, b, 100) == 0 && all_equal(b, 100) &&
         b[0] == (uint8_t)(1 + epoch / 2);
    qallow_view_destroy(old);
    return ok;
}

static void *read_until_stopped(void *context)
{
    struct shared *s = context;
    uint8_t *a = malloc(SHARED_SIZE), *b = malloc(SHARED_SIZE);
    do {
        if (!read_once(s, a, b))
            atomic_fetch_add(&s->failures, 1);
        atomic_fetch_add(&s->reads, 1);
    } while (!atomic_load(&s->stop));
    free(a);
    free(b);
    return NULL;
}

static void commit_bytes(struct shared *s, uint8_t value)
{
    static uint8_t bytes[SHARED_SIZE];
    struct qallow_txn *txn;

    memset(bytes, value, sizeof bytes);
    assert_ok(qallow_begin(s->store, &txn));
    for (int i = 0; i < 2; i++)
        assert_ok(qallow_page_write(txn, s->pages[i], 0, bytes, sizeof bytes));
    assert_ok(qallow_commit(txn, NULL));
}

static void test_readers_beside_commits(void **state)
{
    struct shared s = {.store = open_new("threads.tlog")};
    pthread_t threads[READERS];
    struct qallow_txn *txn;
    uint8_t *bytes = malloc(SHARED_SIZE);

    memset(bytes, 1, SHARED_SIZE);
    assert_ok(qallow_begin(s.store, &txn));
    for (int i = 0; i < 2; i++) {
        s.pages[i] = create_page(txn, i ? "b" : "a", 0, QALLOW_RAW);
        assert_ok(qallow_page_write(txn, s.pages[i], 0, bytes, SHARED_SIZE));
    }
    assert_ok(qallow_commit(txn, NULL));
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_until_stopped, &s), 0);
    for (unsigned n = 2; n <= COMMITS; n++)
        commit_bytes(&s, (uint8_t)n);
    atomic_store(&s.stop, 1);
    for (int i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&s.failures), 0);
    assert_true(atomic_load(&s.reads) >= READERS);
    assert_ok(qallow_close(s.store));
    free(bytes);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_walkthrough),
        cmocka_unit_test(test_unchanged_bytes),
        cmocka_unit_test(test_random_history),
        cmocka_unit_test(test_written_over_as_a_whole),
        cmocka_unit_test(test_writes_at_once),
        cmocka_unit_test(test_writes_that_fail),
        cmocka_unit_test(test_random_history_in_little_memory),
        cmocka_unit_test(test_random_history_without_memory),
        cmocka_unit_test(test_compressed),
        cmocka_unit_test(test_checkpoint),
        cmocka_unit_test(test_refresh),
        cmocka_unit_test(test_readers_beside_commits),
    };

    if (support_begin() != 0)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    failed += _cmocka_run_group_tests("errors", error_tests, error_test_count, NULL, NULL);
    failed += _cmocka_run_group_tests("stats", stats_tests, stats_test_count, NULL, NULL);
    failed += _cmocka_run_group_tests("memory", memory_tests, memory_test_count, NULL, NULL);
    if (failed == 0 && support_end() != 0)
        return 1;
    return failed;
}
