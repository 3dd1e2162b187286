/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does it stay as fast when there is more of it? The cost of a delta over the number of pages, and
 * of an epoch over the length of the history, each beside the smallest of its series.
 *
 * `size` is the number of pages (of 256 bytes), or of epochs.
 */
#include "bench/store.h"
#include "runtime/os.h"

enum { PAGE = 256, DELTA = 64, BATCH = 1000, LEAST = 1000, EPOCH_PAGES = 1000 };

struct scaling {
    struct qm_store many, few;
};

static int add_epochs(struct qm_context *context, struct qm_store *store, uint64_t count)
{
    struct qm_writer writer = {.store = store, .seed = 1, .threads = 1, .length = DELTA};
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < count; i++) {
        rc = i % 1024 ? 0 : qm_stopped(context);
        rc = rc < 0 ? rc : qm_store_write(&writer, 1);
    }
    return rc;
}

static int setup(struct qm_context *context, uint64_t pages, uint64_t epochs)
{
    struct scaling *s = context->state = qr_calloc(1, sizeof *s);
    if (!s)
        return qm_no_memory();
    int rc = qm_store_create(context, "many.tlog", QALLOW_SYNC_NONE, pages, PAGE, &s->many);
    rc = rc < 0 ? rc : qm_store_create(context, "few.tlog", QALLOW_SYNC_NONE, LEAST, PAGE, &s->few);
    rc = rc < 0 ? rc : add_epochs(context, &s->many, epochs);
    return rc < 0 ? rc : add_epochs(context, &s->few, epochs ? LEAST : 0);
}
static int setup_pages(struct qm_context *context) { return setup(context, context->size, 0); }
static int setup_epochs(struct qm_context *context)
{
    return setup(context, EPOCH_PAGES, context->size);
}

static void finish(struct qm_context *context)
{
    struct scaling *s = context->state;
    if (!s)
        return;
    qm_store_finish(&s->many);
    qm_store_finish(&s->few);
    qr_free(s);
}

static int commits(struct qm_store *store, uint64_t repeats, uint64_t deltas,
                   struct qm_sample *sample)
{
    struct qm_writer writer = {
        .store = store, .seed = qm_random(&store->seed), .threads = 1, .length = DELTA};
    double start = qm_now();
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < repeats; i++)
        rc = qm_store_write(&writer, deltas);
    *sample = (struct qm_sample){qm_now() - start, (double)repeats * (double)deltas};
    return rc;
}

static int run_pages(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    return commits(&((struct scaling *)context->state)->many, repeats, BATCH, sample);
}
static int run_few_pages(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    return commits(&((struct scaling *)context->state)->few, repeats, BATCH, sample);
}
static int run_epochs(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    return commits(&((struct scaling *)context->state)->many, repeats, 1, sample);
}
static int run_few_epochs(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    return commits(&((struct scaling *)context->state)->few, repeats, 1, sample);
}

static const struct qm_work pages = {setup_pages, run_pages, run_few_pages, finish};
static const struct qm_work epochs = {setup_epochs, run_epochs, run_few_epochs, finish};

/* clang-format off */
#define PAGES(name, count, title, target) \
    {"scaling/pages-" name, "a 64 B delta, " title " pages", "1,000 pages", \
     "A 64-byte delta to a random page of 256 bytes, 1,000 in a commit that is not synced; " \
     "beside the same with 1,000 pages.", \
     &qm_us, target, &pages, .size = count, .tier = QM_FULL, .series = "cost of a delta over the " \
     "number of pages"}
#define EPOCHS(name, count, title, target) \
    {"scaling/epochs-" name, "an epoch, behind " title, "behind 1,000", \
     "A commit of one 64-byte delta that is not synced, in a store of 1,000 pages with so many " \
     "epochs behind it; beside 1,000 epochs.", \
     &qm_us, target, &epochs, .size = count, .tier = QM_FULL, .series = "cost of an epoch over " \
     "the length of the history"}
#define NONE {QM_NOTHING, 0}
#define AT_MOST_4 {QM_RATIO, 4}
#define FLAT {QM_RATIO, 1.5}
const struct qm_case qm_scaling_cases[] = {
    PAGES("1e3", 1000, "1,000", NONE),
    PAGES("1e4", 10000, "10,000", NONE),
    PAGES("1e5", 100000, "100,000", NONE),
    PAGES("1e6", 1000000, "1,000,000", NONE),
    PAGES("1e7", 10000000, "10,000,000", AT_MOST_4),
    EPOCHS("1e3", 1000, "1,000", NONE),
    EPOCHS("1e4", 10000, "10,000", NONE),
    EPOCHS("1e5", 100000, "100,000", NONE),
    EPOCHS("1e6", 1000000, "1,000,000", FLAT),
    {0},
};
