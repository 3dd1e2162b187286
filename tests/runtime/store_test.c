/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store against a model: random histories of raw pages, kept as plain byte arrays for every
 * epoch. After each stage (commits, reopening with and without the index, pruning, export) every
 * epoch that can be reached must give the model's bytes and a digest that equals the one computed
 * from scratch.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/batch.h"
#include "runtime/digest.h"
#include "runtime/error.h"
#include "runtime/store.h"
#include "tests/random.h"
#include "tests/runtime/ok.h"

enum { PAGES = 12, EPOCHS = 120, SIZE_MAX_PAGE = 300000 };

struct model_page {
    uint64_t id; /* 0: none */
    size_t size;
    uint8_t *bytes;
};
struct model_epoch {
    struct model_page pages[PAGES];
};
struct world {
    struct model_epoch *epochs; /* epochs[e] is the model of epoch e */
    uint64_t last;
    struct qb_u128 digests[EPOCHS + 1];
    char directory[64], path[80];
    uint64_t random;
};

static size_t below(struct world *w, size_t n) { return (size_t)(next_random(&w->random) % n); }

static struct qb_u128 sum_of(uint64_t id, const uint8_t *bytes, size_t size)
{
    struct qr_cell_hasher hasher;
    qr_cells_init(&hasher, id, 0);
    qr_cells_update(&hasher, bytes, size);
    return qr_cells_finish(&hasher);
}

/* New bytes for a page: small edits, insertions, truncation, or something else altogether. */
static void mutate(struct world *w, struct model_page *page)
{
    size_t size = page->size, at = size ? below(w, size) : 0, n = 1 + below(w, 200);
    switch (below(w, 6)) {
    case 0: /* grow at the end, or begin */
        n = 1 + below(w, size ? 3000 : 200000);
        page->bytes = realloc(page->bytes, size + n);
        for (size_t i = 0; i < n; i++)
            page->bytes[size + i] = (uint8_t)next_random(&w->random);
        page->size = size + n;
        break;
    case 1: /* insert */
        page->bytes = realloc(page->bytes, size + n);
        memmove(page->bytes + at + n, page->bytes + at, size - at);
        memset(page->bytes + at, below(w, 2) ? 0 : 'i', n);
        page->size = size + n;
        break;
    case 2: /* remove */
        if (n > size - at)
            n = size - at;
        memmove(page->bytes + at, page->bytes + at + n, size - at - n);
        page->size = size - n;
        break;
    default:
        for (size_t i = at; i < at + n && i < size; i++)
            page->bytes[i] = (uint8_t)next_random(&w->random);
    }
    if (page->size > SIZE_MAX_PAGE)
        page->size = SIZE_MAX_PAGE / 2;
}

static struct model_page copy_page(const struct model_page *page)
{
    struct model_page copy = *page;
    copy.bytes = malloc(page->size + 1);
    memcpy(copy.bytes, page->bytes ? page->bytes : (uint8_t *)"", page->size);
    return copy;
}

static void write_delta(struct qr_batch *batch, const struct model_page *old,
                        const struct model_page *new_)
{
    struct qr_edits edits = {NULL, 0, 0};
    OK(qr_diff(old->bytes, old->size, new_->bytes, new_->size, 1 << 20, &edits));
    OK(qr_batch_delta(batch, new_->id, 0, old->size, new_->size, &edits, old->bytes,
                      sum_of(new_->id, new_->bytes, new_->size)));
    qr_edits_finish(&edits);
}

static void commit_one(struct world *w, struct qr_store *store)
{
    struct qr_txn *txn;
    struct qr_batch *batch;
    struct model_epoch *before = &w->epochs[w->last], *after = &w->epochs[w->last + 1];
    uint64_t epoch;
    OK(qr_batch_create((int)below(w, 2), &batch));
    OK(qr_txn_begin(store, &txn));
    size_t chosen = below(w, PAGES);
    for (size_t i = 0; i < PAGES; i++) {
        struct model_page *old = &before->pages[i], *page = &after->pages[i];
        *page = copy_page(old);
        if (i != chosen && below(w, 4))
            continue;
        if (page->id && below(w, 20) == 0) {
            OK(qr_batch_page_free(batch, page->id));
            page->id = 0;
            page->size = 0;
            continue;
        }
        if (!page->id) {
            char name[32];
            struct qr_attributes attributes = {.mode = 0600, .mtime_ns = (int64_t)w->last};
            page->id = qr_txn_new_id(txn);
            int n = snprintf(name, sizeof name, "page-%zu-%llu", i, (unsigned long long)page->id);
            OK(qr_batch_page_create(batch, page->id, 0, name, (size_t)n, QR_KIND_RAW, &attributes));
        }
        mutate(w, page);
        write_delta(batch, old, page);
    }
    OK(qr_txn_append(txn, batch));
    OK(qr_txn_commit(txn, &epoch));
    assert_int_equal(epoch, w->last + 1);
    w->last++;
    w->digests[epoch] = qr_state_digest(qr_store_state(store));
    qr_batch_destroy(batch);
}

static uint8_t *place_page(void *context, const struct qr_page *page)
{
    uint8_t **buffers = context;
    if (!buffers[page->id])
        buffers[page->id] = malloc(page->size + 1);
    return buffers[page->id];
}

/* The whole state at once gives the same bytes. */
static void check_load(struct world *w, struct qr_store *store, const struct qr_state *state,
                       uint64_t epoch)
{
    uint8_t **buffers = calloc(PAGES * EPOCHS, sizeof *buffers);
    OK(qr_state_load(store, state, &(struct qr_places){place_page, buffers}));
    for (size_t i = 0; i < PAGES; i++) {
        const struct model_page *model = &w->epochs[epoch].pages[i];
        if (model->id)
            assert_memory_equal(buffers[model->id], model->bytes, model->size);
    }
    for (size_t i = 0; i < PAGES * EPOCHS; i++)
        free(buffers[i]);
    free(buffers);
}

static void check_epoch(struct world *w, struct qr_store *store, uint64_t epoch)
{
    struct qr_state *state;
    struct qr_reader *reader;
    struct qb_u128 digest;
    size_t pages = 0;
    OK(qr_store_state_at(store, epoch, &state));
    OK(qr_reader_create(store, 4 << 20, &reader));
    for (size_t i = 0; i < PAGES; i++) {
        const struct model_page *model = &w->epochs[epoch].pages[i];
        if (!model->id)
            continue;
        pages++;
        struct qr_content content;
        const struct qr_page *page = qr_state_find(state, model->id);
        assert_non_null(page);
        assert_int_equal(page->size, model->size);
        uint8_t *bytes = malloc(model->size + 1);
        OK(qr_content_init(&content, page));
        OK(qr_content_read(reader, &content, 0, bytes, model->size));
        assert_memory_equal(bytes, model->bytes, model->size);
        size_t from = below(w, model->size + 1), n = below(w, model->size - from + 1);
        OK(qr_content_read(reader, &content, from, bytes, n));
        assert_memory_equal(bytes, model->bytes + from, n);
        qr_content_finish(&content);
        free(bytes);
    }
    assert_int_equal(qr_state_page_count(state), pages);
    OK(qr_state_digest_compute(store, state, 2, &digest, NULL));
    assert_true(qb_u128_equal(digest, w->digests[epoch]));
    check_load(w, store, state, epoch);
    qr_reader_destroy(reader);
    qr_state_destroy(state);
}

static void check_all(struct world *w, uint64_t from, int ignore_index)
{
    struct qr_store *store;
    struct qr_store_options options = {.ignore_index = ignore_index};
    OK(qr_store_open(w->path, &options, &store));
    for (uint64_t epoch = from; epoch <= w->last; epoch++)
        check_epoch(w, store, epoch);
    OK(qr_store_close(store));
}

static struct qr_store *open_writer(struct world *w)
{
    struct qr_store *store;
    struct qr_store_options options = {
        .writable = 1, .create = 1, .sync = QR_SYNC_NONE, .logical_clock = 1};
    OK(qr_store_open(w->path, &options, &store));
    return store;
}

static void world_create(struct world *w, uint64_t seed)
{
    *w = (struct world){.random = seed};
    w->epochs = calloc(EPOCHS + 1, sizeof *w->epochs);
    snprintf(w->directory, sizeof w->directory, "/tmp/qallow-store-XXXXXX");
    assert_non_null(mkdtemp(w->directory));
    snprintf(w->path, sizeof w->path, "%s/log.tlog", w->directory);
}

static void world_destroy(struct world *w)
{
    static const char *const suffixes[] = {"", "-index", ".lock", ".qckpt"};
    char path[128];
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        snprintf(path, sizeof path, "%s%s", w->path, suffixes[i]);
        unlink(path);
    }
    rmdir(w->directory);
    for (size_t e = 0; e <= EPOCHS; e++)
        for (size_t i = 0; i < PAGES; i++)
            free(w->epochs[e].pages[i].bytes);
    free(w->epochs);
}

static void prune_and_check(struct world *w, uint64_t keep_from)
{
    struct qr_prune_plan plan;
    struct qr_store *store = open_writer(w);
    OK(qr_store_prune(store, keep_from, 0, &plan));
    assert_int_equal(plan.first_epoch_after, keep_from);
    for (uint64_t epoch = keep_from; epoch <= w->last; epoch++)
        check_epoch(w, store, epoch);
    struct qr_state *state;
    assert_int_equal(qr_store_state_at(store, keep_from - 1, &state), QALLOW_E_EPOCH_NOT_FOUND);
    OK(qr_store_close(store));
    check_all(w, keep_from, 0);
    check_all(w, keep_from, 1);
}

static void a_history_comes_back(void **unused)
{
    struct world w;
    const char *given = getenv("QALLOW_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : 20261121;
    printf("seed %llu\n", (unsigned long long)seed);
    world_create(&w, seed);
    struct qr_store *store = open_writer(&w);
    for (int i = 0; i < EPOCHS / 2; i++)
        commit_one(&w, store);
    check_epoch(&w, store, w.last / 2);
    OK(qr_store_label(store, "half", w.last / 2));
    OK(qr_store_close(store));
    check_all(&w, 1, 0);
    check_all(&w, 1, 1);
    store = open_writer(&w);
    for (int i = 0; i < EPOCHS / 4; i++)
        commit_one(&w, store);
    OK(qr_store_close(store));
    check_all(&w, 1, 0);
    prune_and_check(&w, EPOCHS / 3);
    store = open_writer(&w);
    for (int i = 0; i < EPOCHS / 4; i++)
        commit_one(&w, store);
    OK(qr_store_close(store));
    prune_and_check(&w, EPOCHS / 2);
    prune_and_check(&w, w.last);
    world_destroy(&w);
}

static void a_checkpoint_is_a_log_of_one_epoch(void **unused)
{
    struct world w;
    char path[128];
    world_create(&w, 7);
    struct qr_store *store = open_writer(&w);
    for (int i = 0; i < 20; i++)
        commit_one(&w, store);
    snprintf(path, sizeof path, "%s.qckpt", w.path);
    OK(qr_checkpoint_export(store, 13, path, 0));
    assert_int_equal(qr_checkpoint_export(store, 13, path, 0), QALLOW_E_CANNOT_CREATE);
    OK(qr_store_close(store));
    struct qr_store_options options = {.no_index = 1};
    OK(qr_store_open(path, &options, &store));
    check_epoch(&w, store, 13);
    struct qr_state *state;
    assert_int_equal(qr_store_state_at(store, 12, &state), QALLOW_E_EPOCH_NOT_FOUND);
    OK(qr_store_close(store));
    world_destroy(&w);
}

static void an_abort_leaves_the_last_epoch(void **unused)
{
    struct world w;
    struct qr_txn *txn;
    struct qr_batch *batch;
    world_create(&w, 11);
    struct qr_store *store = open_writer(&w);
    for (int i = 0; i < 10; i++)
        commit_one(&w, store);
    OK(qr_batch_create(0, &batch));
    OK(qr_txn_begin(store, &txn));
    struct qr_attributes attributes = {.mode = 0};
    OK(qr_batch_page_create(batch, qr_txn_new_id(txn), 0, "gone", 4, QR_KIND_RAW, &attributes));
    OK(qr_txn_append(txn, batch));
    assert_non_null(qr_state_child(qr_store_state(store), 0, "gone", 4));
    qr_txn_abort(txn);
    assert_null(qr_state_child(qr_store_state(store), 0, "gone", 4));
    check_epoch(&w, store, w.last);
    commit_one(&w, store);
    OK(qr_batch_page_free(batch, 999999)); /* no such page: refused, nothing changes */
    OK(qr_txn_begin(store, &txn));
    assert_int_equal(qr_txn_append(txn, batch), QALLOW_E_PAGE_NOT_FOUND);
    qr_txn_abort(txn);
    OK(qr_store_close(store));
    qr_batch_destroy(batch);
    check_all(&w, 1, 0);
    world_destroy(&w);
}

/* A page of zeros costs nothing, whatever its size: a few bytes of log must not keep a reader busy
 * for hours. */
static void a_giant_hole_costs_nothing(void **unused)
{
    struct world w;
    struct qr_txn *txn;
    struct qr_batch *batch;
    struct qb_u128 digest, nothing = {0, 0};
    uint64_t epoch, size = QR_PAGE_SIZE_MAX - 1;
    world_create(&w, 13);
    struct qr_store *store = open_writer(&w);
    struct qr_attributes attributes = {.mode = 0600};
    struct qr_edit edit = {.new_length = size, .source = QR_ZEROS};
    struct qr_edits edits = {&edit, 1, 1};
    OK(qr_batch_create(0, &batch));
    OK(qr_txn_begin(store, &txn));
    uint64_t id = qr_txn_new_id(txn);
    OK(qr_batch_page_create(batch, id, 0, "hole", 4, QR_KIND_RAW, &attributes));
    OK(qr_batch_delta(batch, id, 0, 0, size, &edits, NULL, nothing));
    OK(qr_txn_append(txn, batch));
    OK(qr_txn_commit(txn, &epoch));
    OK(qr_state_digest_compute(store, qr_store_state(store), 1, &digest, NULL));
    struct qb_u128 recorded = qr_state_digest(qr_store_state(store));
    assert_true(qb_u128_equal(digest, recorded));
    char path[128];
    snprintf(path, sizeof path, "%s.qckpt", w.path);
    OK(qr_checkpoint_export(store, epoch, path, 0));
    qr_batch_destroy(batch);
    OK(qr_store_close(store));
    world_destroy(&w);
}

static size_t reads;

static int64_t counted_read(void *context, int file, void *buffer, size_t length, uint64_t offset)
{
    reads++;
    return qr_os_posix()->pread(context, file, buffer, length, offset);
}

/* A page in pieces that stand in hundreds of frames is read with few reads, and no frame twice, by
 * a reader that can keep hardly anything. */
static void many_pieces_take_few_reads(void **unused)
{
    enum { SIZE = 256 << 10, EDITS = 400, EDIT = 20 };
    struct world w;
    struct qr_os os = *qr_os_posix();
    struct qr_txn *txn;
    struct qr_batch *batch;
    struct qr_reader *reader;
    struct qr_content content;
    struct qr_store *store;
    struct qr_attributes attributes = {.mode = 0600};
    struct qr_store_options options = {
        .writable = 1, .create = 1, .sync = QR_SYNC_NONE, .logical_clock = 1, .os = &os};
    uint64_t epoch;
    world_create(&w, 17);
    os.pread = counted_read;
    OK(qr_store_open(w.path, &options, &store));
    OK(qr_batch_create(1, &batch));
    struct model_page old = {0}, page = {.size = SIZE, .bytes = malloc(SIZE)};
    for (size_t i = 0; i < SIZE; i++)
        page.bytes[i] = (uint8_t)('a' + below(&w, 16)); /* so that compression halves it */
    for (int i = 0; i <= EDITS; i++) {
        OK(qr_txn_begin(store, &txn));
        if (i == 0) {
            old.id = page.id = qr_txn_new_id(txn);
            OK(qr_batch_page_create(batch, page.id, 0, "f", 1, QR_KIND_RAW, &attributes));
        }
        size_t at = below(&w, SIZE - EDIT);
        for (size_t k = at; i && k < at + EDIT; k++)
            page.bytes[k] = (uint8_t)next_random(&w.random);
        write_delta(batch, &old, &page);
        OK(qr_txn_append(txn, batch));
        OK(qr_txn_commit(txn, &epoch));
        free(old.bytes);
        old = copy_page(&page);
    }
    const struct qr_page *present = qr_state_find(qr_store_state(store), page.id);
    assert_in_range(present->piece_count + 2 * present->recent_count, EDITS, 3 * EDITS);
    OK(qr_content_init(&content, present));
    OK(qr_reader_create(store, 2 << 20, &reader));
    reads = 0;
    OK(qr_content_read(reader, &content, 0, old.bytes, SIZE));
    assert_memory_equal(old.bytes, page.bytes, SIZE);
    assert_in_range(reads, 2, 20);
    qr_reader_destroy(reader);
    qr_content_finish(&content);
    qr_batch_destroy(batch);
    OK(qr_store_close(store));
    free(old.bytes);
    free(page.bytes);
    world_destroy(&w);
}

static int refuse_writes;

static int64_t refused_write(void *context, int file, const void *bytes, size_t length,
                             uint64_t offset)
{
    return refuse_writes ? -ENOSPC : qr_os_posix()->pwrite(context, file, bytes, length, offset);
}

static uint64_t commit_nothing(struct qr_store *store, int result)
{
    struct qr_txn *txn;
    uint64_t epoch = 0;
    OK(qr_txn_begin(store, &txn));
    qr_txn_insist(txn);
    assert_int_equal(qr_txn_commit(txn, &epoch), result);
    return epoch;
}

/* Who insists gets an epoch in which nothing has changed; if it cannot be written, nothing of it is
 * left for the next one to be written behind. */
static void an_epoch_of_nothing(void **unused)
{
    struct world w;
    struct qr_store *store;
    struct qr_os os = *qr_os_posix();
    struct qr_store_options options = {
        .writable = 1, .create = 1, .sync = QR_SYNC_COMMIT, .logical_clock = 1, .os = &os};
    char index[128];
    world_create(&w, 19);
    os.pwrite = refused_write;
    OK(qr_store_open(w.path, &options, &store));
    commit_one(&w, store);
    assert_int_equal(commit_nothing(store, 0), 2);
    refuse_writes = 1;
    commit_nothing(store, QALLOW_E_NO_SPACE);
    refuse_writes = 0;
    assert_int_equal(commit_nothing(store, 0), 3);
    assert_int_equal(commit_nothing(store, 0), 4);
    struct qb_u128 digest = qr_state_digest(qr_store_state(store));
    OK(qr_store_close(store));
    snprintf(index, sizeof index, "%s-index", w.path);
    assert_int_equal(unlink(index), 0);
    for (int pass = 0; pass < 2; pass++) { /* from the log alone, then from its index */
        OK(qr_store_open(w.path, &options, &store));
        assert_int_equal(qr_state_epoch(qr_store_state(store)), 4);
        assert_true(qb_u128_equal(qr_state_digest(qr_store_state(store)), digest));
        OK(qr_store_close(store));
    }
    world_destroy(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_history_comes_back),
        cmocka_unit_test(a_checkpoint_is_a_log_of_one_epoch),
        cmocka_unit_test(an_abort_leaves_the_last_epoch),
        cmocka_unit_test(a_giant_hole_costs_nothing),
        cmocka_unit_test(many_pieces_take_few_reads),
        cmocka_unit_test(an_epoch_of_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
