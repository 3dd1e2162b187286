/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow stats`: the numbers of one log. The newest state says what there is; the records of all
 * epochs that are kept, walked with the state before them because that knows the kind of the page,
 * say what changed; the frames say what it takes in the file.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "interface/cmd_stats.h"
#include "runtime/consumers.h"

static void count_delta(struct qi_stats *s, const struct qr_state *state,
                        const struct qr_record *record)
{
    const struct qr_page *page = qr_state_find(state, record->page);
    struct qr_cursor cursor = qr_cursor(record->operations, record->operations_length);
    struct qr_op op;

    if (record->first)
        s->open_bytes = s->old_end = 0;
    while (qr_op_next(&cursor, &s->old_end, &op) > 0)
        s->counts.operations[op.kind]++;
    s->open_bytes += record->operations_length;
    s->counts.delta_bytes += record->operations_length;
    if (record->last) {
        qt_histogram_observe(&s->sizes, s->open_bytes, 1);
        s->counts.deltas[page ? page->kind : 0]++;
    }
}

static int count_record(void *context, const struct qr_epoch *epoch, const struct qr_state *state,
                        const struct qr_record *record)
{
    struct qi_stats *s = context;
    unsigned type = (unsigned)record->type;

    s->records[type < QI_STATS_TYPES ? type : 0]++;
    if (record->type == QR_RECORD_DELTA)
        count_delta(s, state, record);
    s->counts.images += record->type == QR_RECORD_IMAGE && record->last;
    return 0;
}

static int count_frame(void *context, const struct qr_frame_size *frame)
{
    struct qi_stats *s = context;
    struct qi_stats_frames *both[] = {&s->frames[frame->type < QI_STATS_FRAMES ? frame->type : 0],
                                      &s->compressed};

    for (unsigned i = 0; i < 1u + (frame->is_compressed != 0); i++) {
        both[i]->count++;
        both[i]->bytes += frame->bytes;
        both[i]->stored += frame->stored;
        both[i]->uncompressed += frame->length;
    }
    if (frame->content > 0) {
        s->content.whole += !frame->is_based;
        s->content.based += frame->is_based != 0;
        s->content.bytes += frame->content;
        s->content.stored += frame->stored;
    }
    return 0;
}

static int count_consumer(void *context, const struct qr_consumer *consumer)
{
    struct qi_stats *s = context;

    s->consumers++;
    if (consumer->epoch > 0 && (s->held_epoch == 0 || consumer->epoch < s->held_epoch))
        s->held_epoch = consumer->epoch;
    return 0;
}

static int gather_epochs(struct qi_stats *s, struct qr_store *store)
{
    int rc = 0;
    if (s->info.first_epoch == 0)
        return 0;
    s->epochs = s->info.last_epoch - s->info.first_epoch + 1;
    for (uint64_t n = s->info.first_epoch; rc == 0 && n <= s->info.last_epoch; n++) {
        struct qr_epoch epoch;
        rc = qr_store_epoch(store, n, &epoch);
        if (rc < 0)
            break;
        uint64_t bytes = epoch.frame_end - epoch.frame_start;
        s->data_bytes += bytes;
        if (bytes > s->largest) {
            s->largest = bytes;
            s->largest_epoch = n;
        }
        if (n == s->info.first_epoch)
            s->first_time = epoch.time_ns;
        s->last_time = epoch.time_ns;
    }
    return rc;
}

static int gather_state(struct qi_stats *s, const struct qr_state *state)
{
    const struct qr_page *page;
    struct qr_content content;
    int rc = 0;

    s->digest = qr_state_digest(state);
    for (page = qr_state_next_page(state, 0); page && rc == 0;
         page = qr_state_next_page(state, page->id)) {
        s->pages[page->kind]++;
        s->page_bytes[page->kind] += page->size;
        rc = qr_content_init(&content, page);
        s->pieces += content.piece_count;
        qr_content_finish(&content);
    }
    return rc;
}

int qi_stats_gather(struct qr_store *store, const char *log, struct qi_stats *s)
{
    char index[4200];
    struct stat st;
    int rc;

    *s = (struct qi_stats){.pieces = 0};
    qr_store_info(store, &s->info);
    rc = gather_state(s, qr_store_state(store));
    if (snprintf(index, sizeof index, "%s-index", log) < (int)sizeof index &&
        stat(index, &st) == 0) {
        s->has_index = 1;
        s->index_bytes = (uint64_t)st.st_size;
    }
    if (rc == 0)
        rc = gather_epochs(s, store);
    /* The records of the oldest epoch of a pruned log are gone: the walk begins behind it. */
    struct qr_walk walk = {.from = s->info.first_epoch,
                           .to = s->info.last_epoch,
                           .with_state = 1,
                           .record = count_record,
                           .context = s};
    if (rc == 0 && s->epochs > 0)
        rc = qr_store_walk(store, &walk);
    if (rc == 0)
        rc = qr_consumers_each(store, count_consumer, s);
    return rc < 0 ? rc : qr_store_each_frame(store, count_frame, s);
}

struct qi_stats_sum qi_stats_amount(const struct qi_stats *stats)
{
    struct qi_stats_sum amount = {.files = 1,
                                  .epochs = stats->epochs,
                                  .deltas = stats->sizes.count,
                                  .delta_bytes = stats->sizes.sum,
                                  .log_bytes = stats->info.log_end,
                                  .allocated_bytes = stats->info.allocated};

    for (unsigned i = 0; i < QI_STATS_KINDS; i++) {
        amount.pages += stats->pages[i];
        amount.content_bytes += stats->page_bytes[i];
    }
    return amount;
}

void qi_stats_add(struct qi_stats_sum *sum, const struct qi_stats_sum *more)
{
    sum->files += more->files;
    sum->epochs += more->epochs;
    sum->pages += more->pages;
    sum->content_bytes += more->content_bytes;
    sum->deltas += more->deltas;
    sum->delta_bytes += more->delta_bytes;
    sum->log_bytes += more->log_bytes;
    sum->allocated_bytes += more->allocated_bytes;
}
