/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions about history against answers found the slow way. A random history of one tree of pages
 * is kept in memory too, every epoch of it; then
 *   - the ranges of a difference, applied to the old bytes with the new ones put in, give the new
 *     bytes, ascend, do not touch, and with gap 1 hold no byte that is the same on both sides;
 *   - the differences of two states are those of the models, name by name;
 *   - blame says of each byte an epoch in which it was written, and bytes never written to keep
 *     theirs;
 *   - verification passes, and finds a page whose bytes were damaged.
 *
 * QALLOW_SEED=n repeats a run; QALLOW_QUERY_EPOCHS=n makes it longer.
 */
#include "runtime/query.h"

#include "tests/api/support.h"

enum { PAGES = 6, SIZE = 3000 };

struct model_page {
    uint64_t id; /* 0: none */
    size_t size;
    char name[16];
    uint8_t bytes[SIZE];
};
struct model {
    struct model_page pages[PAGES];
};

static const char log_name[] = "history.tlog";

/* --- a history --- */

static void edit(struct model_page *page, struct qallow_txn *txn, uint64_t *random)
{
    size_t offset = next_random(random) % (page->size + 1), removed, length;
    uint8_t bytes[200];

    removed = next_random(random) % 3 ? 0 : next_random(random) % (page->size - offset + 1);
    length = next_random(random) % sizeof bytes;
    if (next_random(random) % 2) /* in place */
        removed = length = length < page->size - offset ? length : page->size - offset;
    if (page->size - removed + length > SIZE)
        return;
    for (size_t i = 0; i < length; i++) /* few letters: many bytes stay the same */
        bytes[i] = (uint8_t)('a' + next_random(random) % 3);
    assert_ok(qallow_page_splice(txn, page->id, offset, removed, bytes, length));
    memmove(page->bytes + offset + length, page->bytes + offset + removed,
            page->size - offset - removed);
    memcpy(page->bytes + offset, bytes, length);
    page->size += length - removed;
}

static void change(struct model *model, struct qallow_txn *txn, uint64_t *random)
{
    size_t slot = next_random(random) % PAGES;
    struct model_page *page = &model->pages[slot];
    struct qallow_page_options options = QALLOW_PAGE_OPTIONS_INIT;

    if (page->id == 0) {
        snprintf(page->name, sizeof page->name, "page%zu", slot);
        options.name = page->name;
        page->size = 0;
        assert_ok(qallow_page_create(txn, &options, &page->id));
        edit(page, txn, random);
    } else if (next_random(random) % 12 == 0) {
        assert_ok(qallow_page_free(txn, page->id));
        page->id = 0;
    } else if (next_random(random) % 10 == 0) {
        snprintf(page->name, sizeof page->name, "other%zu-%u", slot,
                 (unsigned)(next_random(random) % 100));
        assert_ok(qallow_page_rename(txn, page->id, 0, page->name));
    } else {
        edit(page, txn, random);
    }
}

/* Makes the log; returns the model of every epoch, and how many there are. */
static struct model *make_history(size_t epochs, uint64_t *newest)
{
    struct qallow_options options = QALLOW_OPTIONS_INIT;
    struct model *models = calloc(epochs + 1, sizeof *models);
    struct qallow_store *store;
    uint64_t random = seed;

    options.writable = options.create = options.logical_clock = 1;
    options.sync = QALLOW_SYNC_NONE;
    assert_ok(qallow_open(path(log_name), &options, &store));
    *newest = 0;
    for (size_t i = 0; i < epochs; i++) {
        struct model now = models[*newest];
        struct qallow_txn *txn;
        assert_ok(qallow_begin(store, &txn));
        for (size_t n = 1 + next_random(&random) % 4; n > 0; n--)
            change(&now, txn, &random);
        assert_ok(qallow_commit(txn, newest));
        models[*newest] = now;
    }
    assert_ok(qallow_close(store));
    return models;
}

static const struct model_page *find(const struct model *model, uint64_t id)
{
    for (size_t i = 0; i < PAGES; i++)
        if (model->pages[i].id == id)
            return &model->pages[i];
    return NULL;
}

/* --- differences of content --- */

struct patching {
    const struct model_page *old, *new;
    uint8_t out[2 * SIZE];
    size_t out_size, old_at, gap;
    int any;
};

static int apply_change(void *context, const struct qr_change *c)
{
    struct patching *p = context;
    size_t kept = c->old_offset - p->old_at;

    assert_true(c->old_offset >= p->old_at);
    assert_true(!p->any || p->gap == 1 || kept >= p->gap);
    assert_true(c->old_length + c->new_length > 0);
    memcpy(p->out + p->out_size, p->old->bytes + p->old_at, kept);
    p->out_size += kept;
    assert_int_equal(p->out_size, c->new_offset);
    memcpy(p->out + p->out_size, p->new->bytes + c->new_offset, c->new_length);
    p->out_size += c->new_length;
    p->old_at = c->old_offset + c->old_length;
    if (p->gap == 1 && c->old_length == c->new_length)
        for (size_t i = 0; i < c->old_length; i++)
            assert_int_not_equal(p->old->bytes[c->old_offset + i],
                                 p->new->bytes[c->new_offset + i]);
    if (p->gap == 1 && c->old_length > 0 && c->new_length > 0) { /* and at both ends */
        assert_int_not_equal(p->old->bytes[c->old_offset], p->new->bytes[c->new_offset]);
        assert_int_not_equal(p->old->bytes[p->old_at - 1], p->new->bytes[p->out_size - 1]);
    }
    p->any = 1;
    return 0;
}

static void check_content(struct qr_reader *reader, const struct qr_page *a,
                          const struct qr_page *b, const struct model_page *old,
                          const struct model_page *new, size_t gap)
{
    struct patching p = {.old = old, .new = new, .gap = gap};
    struct qr_content before, after;

    assert_ok(qr_content_init(&before, a));
    assert_ok(qr_content_init(&after, b));
    assert_ok(qr_content_diff(reader, &before, &after, gap, apply_change, &p));
    memcpy(p.out + p.out_size, old->bytes + p.old_at, old->size - p.old_at);
    p.out_size += old->size - p.old_at;
    assert_int_equal(p.out_size, new->size);
    assert_memory_equal(p.out, new->bytes, new->size);
    assert_int_equal(p.any, old->size != new->size ||
                                memcmp(old->bytes, new->bytes, new->size) != 0);
    qr_content_finish(&before);
    qr_content_finish(&after);
}

/* --- differences of states --- */

struct comparing {
    const struct model *a, *b;
    size_t found;
    char last[64];
};

static int check_difference(void *context, const struct qr_difference *d)
{
    struct comparing *c = context;
    const struct model_page *old = d->a ? find(c->a, d->a->id) : NULL;
    const struct model_page *new = d->b ? find(c->b, d->b->id) : NULL;

    assert_true(strcmp(c->last, d->name) < 0); /* in order, each once */
    snprintf(c->last, sizeof c->last, "%s", d->name);
    assert_true(strchr("ADMR", d->status) != NULL);
    assert_true((d->status == 'A') == !old && (d->status == 'D') == !new);
    assert_string_equal(d->name, new ? new->name : old->name);
    if (d->status == 'R') {
        assert_string_equal(d->old_name, old->name);
        assert_string_not_equal(d->old_name, d->name);
    }
    if (old && new) {
        int differs = old->size != new->size || memcmp(old->bytes, new->bytes, new->size) != 0;
        assert_int_equal((d->flags & QR_DIFF_CONTENT) != 0, differs);
    }
    c->found++;
    return 0;
}

/* How many names the models say differ. */
static size_t count_differences(const struct model *a, const struct model *b)
{
    size_t count = 0;
    for (size_t i = 0; i < PAGES; i++) {
        const struct model_page *old = &a->pages[i], *new = &b->pages[i];
        int same_bytes = old->size == new->size && memcmp(old->bytes, new->bytes, new->size) == 0;
        if (old->id && old->id == new->id)
            count += strcmp(old->name, new->name) != 0 || !same_bytes;
        else if (old->id && new->id && strcmp(old->name, new->name) == 0)
            count += !same_bytes; /* freed and made again: one change of that name */
        else
            count += (old->id != 0) + (new->id != 0);
    }
    return count;
}

static void test_differences(void **state)
{
    struct qr_store_options options = {0};
    struct qr_store *store;
    struct qr_reader *reader;
    struct model *models = *state;
    uint64_t newest = models[0].pages[0].size, random = seed ^ 1; /* see set_up */

    assert_ok(qr_store_open(path(log_name), &options, &store));
    assert_ok(qr_reader_create(store, 2 << 20, &reader));
    for (int i = 0; i < 150; i++) {
        uint64_t from = 1 + next_random(&random) % newest, to = 1 + next_random(&random) % newest;
        struct comparing c = {.a = &models[from], .b = &models[to]};
        struct qr_state *a, *b;
        assert_ok(qr_store_state_at(store, from, &a));
        assert_ok(qr_store_state_at(store, to, &b));
        assert_ok(qr_diff_states(reader, a, b, check_difference, &c));
        assert_int_equal(c.found, count_differences(c.a, c.b));
        for (size_t n = 0; n < PAGES; n++) {
            const struct model_page *old = &models[from].pages[n], *new = &models[to].pages[n];
            if (old->id && new->id)
                check_content(reader, qr_state_find(a, old->id), qr_state_find(b, new->id), old,
                              new, i % 2 ? 1 : 8);
        }
        qr_state_destroy(a);
        qr_state_destroy(b);
    }
    qr_reader_destroy(reader);
    assert_ok(qr_store_close(store));
}

/* --- blame --- */

struct blaming {
    const struct model *models;
    uint64_t id, epoch;
    size_t at;
    uint64_t of[SIZE];
};

static int note_blame(void *context, const struct qr_blame *run)
{
    struct blaming *b = context;
    assert_int_equal(run->offset, b->at);
    assert_true(run->length > 0 && run->epoch >= 1 && run->epoch <= b->epoch);
    assert_false(run->or_earlier);
    for (uint64_t i = 0; i < run->length; i++)
        b->of[b->at++] = run->epoch;
    return 0;
}

/* Blame of an epoch follows from blame of the one before: bytes the epoch did not touch keep
 * theirs, in order. */
static void check_blame_step(const struct blaming *before, const struct blaming *now,
                             const struct model_page *old, const struct model_page *new)
{
    size_t head = 0, tail = 0, common = old->size < new->size ? old->size : new->size;

    while (head < common && old->bytes[head] == new->bytes[head])
        head++;
    while (tail < common - head &&
           old->bytes[old->size - 1 - tail] == new->bytes[new->size - 1 - tail])
        tail++;
    if (head == old->size && head == new->size) { /* nothing differs */
        assert_memory_equal(before->of, now->of, head * sizeof *now->of);
        return;
    }
    size_t of_this_epoch = 0;
    for (size_t i = 0; i < new->size; i++)
        of_this_epoch += now->of[i] == now->epoch;
    assert_true(of_this_epoch <= new->size);
    if (old->size <= new->size)
        assert_true(of_this_epoch >= new->size - old->size);
    /* Every byte that is not this epoch's came from before, in order. */
    for (size_t i = 0, j = 0; i < new->size; i++) {
        if (now->of[i] == now->epoch)
            continue;
        while (j < old->size &&
               (before->of[j] != now->of[i] || old->bytes[j] != new->bytes[i]))
            j++;
        assert_true(j < old->size);
        j++;
    }
}

static void test_blame(void **state)
{
    struct qr_store_options options = {0};
    struct blaming before = {0}, now;
    struct model *models = *state;
    uint64_t newest = models[0].pages[0].size;
    struct qr_store *store;

    assert_ok(qr_store_open(path(log_name), &options, &store));
    for (uint64_t epoch = 1; epoch <= newest && epoch <= 60; epoch++) {
        const struct model_page *new = &models[epoch].pages[0], *old;
        if (!new->id)
            continue;
        now = (struct blaming){.models = models, .id = new->id, .epoch = epoch};
        assert_ok(qr_blame(store, epoch, new->id, 0, new->size, note_blame, &now));
        assert_int_equal(now.at, new->size);
        old = find(&models[epoch - 1], new->id);
        if (old && before.id == new->id && before.epoch == epoch - 1)
            check_blame_step(&before, &now, old, new);
        else if (!old)
            for (size_t i = 0; i < new->size; i++)
                assert_int_equal(now.of[i], epoch);
        before = now;
    }
    assert_int_equal(qr_blame(store, newest, 999999, 0, 1, note_blame, &now),
                     QALLOW_E_PAGE_NOT_FOUND);
    assert_ok(qr_store_close(store));
}

/* --- history --- */

struct events {
    const struct model *models;
    uint64_t id, last;
    size_t count;
};

static int check_event(void *context, const struct qr_event *event)
{
    struct events *e = context;
    const struct model_page *old = find(&e->models[event->epoch - 1], e->id);
    const struct model_page *new = find(&e->models[event->epoch], e->id);

    assert_true(event->epoch > e->last);
    e->last = event->epoch;
    e->count++;
    assert_int_equal(event->status == 'A', !old);
    assert_int_equal(event->status == 'D', !new);
    if (new)
        assert_string_equal(event->name, new->name);
    if (old && new)
        assert_true(event->new_size == new->size && event->old_size == old->size);
    return 0;
}

static void test_history(void **state)
{
    struct qr_store_options options = {0};
    struct model *models = *state;
    uint64_t newest = models[0].pages[0].size;
    struct qr_store *store;

    assert_ok(qr_store_open(path(log_name), &options, &store));
    for (uint64_t id = 1; id <= 12; id++) {
        struct events events = {.models = models, .id = id};
        size_t expected = 0;
        for (uint64_t epoch = 1; epoch <= newest; epoch++) {
            const struct model_page *old = epoch > 1 ? find(&models[epoch - 1], id) : NULL;
            const struct model_page *new = find(&models[epoch], id);
            expected += (old == NULL) != (new == NULL) ||
                        (old && new && (strcmp(old->name, new->name) != 0 ||
                                        old->size != new->size ||
                                        memcmp(old->bytes, new->bytes, new->size) != 0));
        }
        assert_ok(qr_history_of(store, id, check_event, &events));
        assert_int_equal(events.count, expected);
    }
    assert_ok(qr_store_close(store));
}

/* --- verification --- */

struct problems {
    size_t count;
    uint64_t epoch;
    char page[64];
};

static void note_problem(void *context, uint64_t epoch, const char *page, const char *text)
{
    struct problems *p = context;
    assert_true(text[0] != '\0');
    if (p->count++ == 0) {
        p->epoch = epoch;
        snprintf(p->page, sizeof p->page, "%s", page ? page : "");
    }
}

static void test_verify(void **state)
{
    struct qr_store_options options = {0};
    struct qr_verify_result result;
    struct problems problems = {0};
    struct model *models = *state;
    uint64_t newest = models[0].pages[0].size;
    struct qr_store *store;

    assert_ok(qr_store_open(path(log_name), &options, &store));
    assert_ok(qr_verify_history(store, 2, 0, note_problem, &problems, &result));
    assert_int_equal(result.epochs, newest);
    assert_true(result.full >= 2);
    assert_int_equal(problems.count, 0);

    /* A flipped bit in the first frame, under the open store: page1's or whoever's it is. */
    FILE *file = fopen(path(log_name), "r+b");
    assert_int_equal(fseek(file, 8192 + 40 + 20, SEEK_SET), 0);
    int byte = fgetc(file);
    assert_int_equal(fseek(file, 8192 + 40 + 20, SEEK_SET), 0);
    fputc(byte ^ 1, file);
    assert_int_equal(fflush(file), 0);
    assert_int_equal(qr_verify_history(store, 1, 0, note_problem, &problems, &result),
                     QALLOW_E_DAMAGED);
    assert_true(problems.count > 0 && result.damaged == problems.count);
    assert_int_equal(fseek(file, 8192 + 40 + 20, SEEK_SET), 0);
    fputc(byte, file);
    assert_int_equal(fclose(file), 0);
    assert_ok(qr_store_close(store));
}

/* Epoch 0 has no pages: the number of epochs is kept in its place. */
static int set_up(void **state)
{
    const char *text = getenv("QALLOW_QUERY_EPOCHS");
    uint64_t newest;
    struct model *models = make_history(text ? strtoul(text, NULL, 10) : 120, &newest);
    models[0].pages[0].size = newest;
    *state = models;
    return 0;
}

static int tear_down(void **state)
{
    free(*state);
    return 0;
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_differences),
        cmocka_unit_test(test_blame),
        cmocka_unit_test(test_history),
        cmocka_unit_test(test_verify),
    };
    if (support_begin() != 0)
        return 1;
    int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    if (failed == 0 && support_end() != 0)
        return 1;
    return failed;
}
