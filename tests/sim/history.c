/* SPDX-License-Identifier: Apache-2.0 */
/* See history.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "content.h"
#include "history.h"
#include "runtime/consumers.h"

char history_where[200];

void history_die(const struct history *history, const char *format, ...)
{
    va_list arguments;
    fflush(stdout);
    fprintf(stderr, "\nFAILED: seed %llu, change %llu%s: ", (unsigned long long)history->seed,
            (unsigned long long)sim_count(history->sim, SIM_CHANGES), history_where);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n        (epochs %llu..%llu, durable %llu; repeat with QALLOW_SEED=%llu)\n",
            (unsigned long long)history->first, (unsigned long long)history->last,
            (unsigned long long)history->durable, (unsigned long long)history->seed);
    _exit(1);
}

static void count_notice(void *context, const char *line)
{
    unsigned *notices = context;
    *notices += line && *line && !strchr(line, '\n');
}

/* An error of the store: legal only where failures are injected. */
static int failed(struct history *history, int rc, const char *what)
{
    if (!history->tolerant)
        history_die(history, "%s: %d %s: %s", what, rc, qallow_strerror(rc), qallow_error_detail());
    history->error = rc;
    return -1;
}

struct history *history_create(uint64_t seed)
{
    struct history *history = sim_allocate(sizeof *history);
    history->seed = history->random = seed;
    history->sim = sim_create(seed);
    history->epochs[0] = model_copy(NULL);
    history->first = history->first_next = 1;
    for (size_t i = 0; i < HISTORY_CONSUMERS; i++)
        history->consumers[i].epoch = HISTORY_NO_CONSUMER;
    history->options = (struct qr_store_options){
        .writable = 1,
        .sync = QR_SYNC_COMMIT,
        .sync_interval_ms = 20,
        .compress_level = sim_below(&history->random, 2) ? 1 : 0,
        .logical_clock = sim_below(&history->random, 4) == 0,
        .notice = count_notice,
        .notice_context = &history->notices,
    };
    return history;
}

static void drop_candidates(struct history *history)
{
    while (history->candidate_count > 0)
        model_free(history->candidates[--history->candidate_count]);
}

void history_destroy(struct history *history)
{
    if (history->store)
        qr_store_close(history->store);
    if (sim_open_files(history->sim) != 0)
        history_die(history, "%u files were left open", sim_open_files(history->sim));
    drop_candidates(history);
    for (uint64_t i = 0; i <= history->last; i++)
        model_free(history->epochs[i]);
    sim_destroy(history->sim);
    free(history);
}

/* --- checking --- */

static void check_epoch(struct history *history, struct qr_store *store, struct qr_reader *reader,
                        const struct model_state *expected)
{
    struct qr_state *state = NULL;
    struct qr_epoch info;
    unsigned long long epoch = expected->epoch;
    int rc = qr_store_state_at(store, expected->epoch, &state);
    if (rc < 0)
        history_die(history, "epoch %llu: %s", epoch, qallow_error_detail());
    const char *differs = model_compare(expected, store, state, reader);
    if (differs)
        history_die(history, "epoch %llu differs: %s", epoch, differs);
    qr_state_destroy(state);
    rc = qr_store_epoch(store, expected->epoch, &info);
    if (rc < 0)
        history_die(history, "epoch %llu: no information: %s", epoch, qallow_error_detail());
    if (info.epoch != expected->epoch || !qb_u128_equal(info.digest, model_digest(expected)))
        history_die(history, "epoch %llu: its commit says something else", epoch);
}

/* The model of the newest epoch on a disk: one of the known ones, or of the candidates. */
static const struct model_state *model_of_last(struct history *history, struct qr_store *store,
                                               uint64_t last)
{
    struct qb_u128 found = qr_state_digest(qr_store_state(store));
    if (last <= history->last)
        return history->epochs[last];
    for (size_t i = 0; i < history->candidate_count; i++) {
        if (qb_u128_equal(model_digest(history->candidates[i]), found))
            return history->candidates[i];
    }
    history_die(history, "epoch %llu was never begun", (unsigned long long)last);
}

static void check_epochs(struct history *history, struct qr_store *store, uint64_t first,
                         uint64_t last, int thorough)
{
    struct qr_reader *reader;
    uint64_t choice = history->seed ^ last;
    if (qr_reader_create(store, 2 << 20, &reader) < 0)
        history_die(history, "no reader: %s", qallow_error_detail());
    const struct model_state *newest = model_of_last(history, store, last);
    const char *differs = model_compare(newest, store, qr_store_state(store), reader);
    if (differs)
        history_die(history, "the newest state, epoch %llu, differs: %s", (unsigned long long)last,
                    differs);
    for (uint64_t epoch = first; epoch > 0 && epoch <= last; epoch++) {
        if (thorough || epoch == first || sim_below(&choice, last - first + 1) == 0)
            check_epoch(history, store, reader, epoch == last ? newest : history->epochs[epoch]);
    }
    qr_reader_destroy(reader);
}

static void label_name(char name[16], size_t i) { snprintf(name, 16, "label-%zu", i); }

/* A label says what it said when it was last durable, or something it was set to since; it may be
 * gone with its epoch. */
static int may_stand_for(const struct history *history, size_t i, uint64_t epoch)
{
    int may = epoch == history->labels_durable[i];
    for (size_t j = 0; j < history->label_changes[i]; j++)
        may |= epoch == history->labels_since[i][j];
    return may;
}

static void check_labels(struct history *history, struct qr_store *store, uint64_t first,
                         uint64_t last)
{
    for (size_t i = 0; i < HISTORY_LABELS; i++) {
        char name[16];
        uint64_t epoch = 0, durable = history->labels_durable[i];
        label_name(name, i);
        int rc = qr_store_epoch_of_label(store, name, &epoch);
        if (rc < 0 && rc != QALLOW_E_EPOCH_NOT_FOUND)
            history_die(history, "%s: %s", name, qallow_error_detail());
        if (rc < 0 && durable >= first && durable <= last && durable > 0 &&
            history->label_changes[i] == 0)
            history_die(history, "%s of epoch %llu is lost", name, (unsigned long long)durable);
        if (rc == 0 && (!may_stand_for(history, i, epoch) || epoch < first || epoch > last))
            history_die(history, "%s stands for epoch %llu, not %llu", name,
                        (unsigned long long)epoch, (unsigned long long)durable);
    }
}

static void consumer_name(char name[16], size_t i) { snprintf(name, 16, "consumer-%zu", i); }

struct found_consumers {
    struct history *history;
    uint64_t epochs[HISTORY_CONSUMERS];
};

static int note_consumer(void *context, const struct qr_consumer *consumer)
{
    struct found_consumers *found = context;
    char name[16];
    for (size_t i = 0; i < HISTORY_CONSUMERS; i++) {
        consumer_name(name, i);
        if (strcmp(name, consumer->name) != 0)
            continue;
        if (found->epochs[i] != HISTORY_NO_CONSUMER)
            history_die(found->history, "%s is there twice", name);
        found->epochs[i] = consumer->epoch;
        return 0;
    }
    history_die(found->history, "a consumer that nobody entered");
}

/* What the store says of its consumers, which must be what they were told, or tried, to be. */
static int check_consumers(struct history *history, struct qr_store *store,
                           struct found_consumers *found)
{
    found->history = history;
    for (size_t i = 0; i < HISTORY_CONSUMERS; i++)
        found->epochs[i] = HISTORY_NO_CONSUMER;
    int rc = qr_consumers_each(store, note_consumer, found);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < HISTORY_CONSUMERS; i++) {
        const struct history_consumer *consumer = &history->consumers[i];
        int may = found->epochs[i] == consumer->epoch;
        for (size_t j = 0; j < consumer->tries; j++)
            may |= found->epochs[i] == consumer->tried[j];
        if (!may)
            history_die(history, "consumer %zu holds epoch %lld, not %lld", i,
                        (long long)found->epochs[i], (long long)consumer->epoch);
    }
    return 0;
}

/* Whether one of the .bad files holds these bytes. */
static int is_kept(struct sim *disk, const uint8_t *bytes, size_t length)
{
    const char *name;
    int kept = 0;
    for (size_t i = 0; !kept && (name = sim_file_name(disk, i)); i++) {
        size_t found = 0;
        if (strncmp(name, HISTORY_LOG ".bad", strlen(HISTORY_LOG ".bad")) != 0)
            continue;
        uint8_t *bad = sim_dump(disk, name, &found);
        kept = found == length && memcmp(bad, bytes, length) == 0;
        free(bad);
    }
    return kept;
}

/* What was cut off the log must be said and kept, now and after another crash. */
static void check_cut(struct history *history, struct sim *disk, const uint8_t *before,
                      size_t before_length, const struct qr_store_info *info, unsigned notices)
{
    unsigned long long cut = info->cut_bytes;
    if (cut == 0)
        return;
    if (notices == 0)
        history_die(history, "%llu bytes were cut without a word", cut);
    if (before_length < info->log_end + cut)
        history_die(history, "%llu bytes were cut of a log that ends before", cut);
    if (!is_kept(disk, before + info->log_end, info->cut_bytes))
        history_die(history, "%llu bytes were cut and not kept", cut);
    struct sim *image = sim_crash(disk, 0, SIM_DROP_ALL);
    if (!is_kept(image, before + info->log_end, info->cut_bytes))
        history_die(history, "%llu bytes that were cut are lost in another crash", cut);
    sim_destroy(image);
}

static struct qr_store *open_disk(struct history *history, struct sim *disk, int create,
                                  unsigned *notices)
{
    struct qr_store_options options = history->options;
    struct qr_store *store = NULL;
    options.os = sim_os(disk);
    options.create = create;
    options.sync = QR_SYNC_COMMIT;
    options.ignore_index = ++history->opens % 4 == 0;
    options.notice_context = notices;
    int rc = qr_store_open(HISTORY_LOG, &options, &store);
    if (rc < 0)
        history_die(history, "it does not open: %d %s: %s", rc, qallow_strerror(rc),
                    qallow_error_detail());
    return store;
}

static void check_range(struct history *history, const struct qr_store_info *info)
{
    if (info->last_epoch < history->durable)
        history_die(history, "epoch %llu is lost; the log ends with %llu",
                    (unsigned long long)history->durable, (unsigned long long)info->last_epoch);
    if (info->last_epoch > history->last + (history->candidate_count > 0))
        history_die(history, "epoch %llu was never begun", (unsigned long long)info->last_epoch);
    if (info->last_epoch > 0 && info->first_epoch != history->first &&
        info->first_epoch != history->first_next)
        history_die(history, "the log begins with epoch %llu",
                    (unsigned long long)info->first_epoch);
}

static void close_checked(struct history *history, struct sim *disk, struct qr_store *store)
{
    if (qr_store_close(store) < 0)
        history_die(history, "closing: %s", qallow_error_detail());
    if (sim_open_files(disk) != 0)
        history_die(history, "%u files were left open", sim_open_files(disk));
}

uint64_t history_check(struct history *history, struct sim *disk, int thorough)
{
    struct qr_store_info info, again;
    struct found_consumers found;
    size_t before_length = 0;
    uint8_t *before = sim_dump(disk, HISTORY_LOG, &before_length);
    unsigned notices = 0;
    struct qr_store *store = open_disk(history, disk, !history->exists, &notices);
    qr_store_info(store, &info);
    check_range(history, &info);
    check_epochs(history, store, info.first_epoch, info.last_epoch, thorough);
    check_labels(history, store, info.first_epoch, info.last_epoch);
    if (check_consumers(history, store, &found) < 0)
        history_die(history, "consumers: %s", qallow_error_detail());
    check_cut(history, disk, before, before_length, &info, notices);
    free(before);
    close_checked(history, disk, store);

    store = open_disk(history, disk, 0, &notices);
    qr_store_info(store, &again);
    if (again.last_epoch != info.last_epoch || again.first_epoch != info.first_epoch)
        history_die(history, "opened again: epochs %llu..%llu, before %llu..%llu",
                    (unsigned long long)again.first_epoch, (unsigned long long)again.last_epoch,
                    (unsigned long long)info.first_epoch, (unsigned long long)info.last_epoch);
    if (again.cut_bytes > 0 || !again.closed_cleanly)
        history_die(history, "opened again after a clean close: %llu bytes cut, clean %d",
                    (unsigned long long)again.cut_bytes, again.closed_cleanly);
    check_epochs(history, store, again.first_epoch, again.last_epoch, 0);
    close_checked(history, disk, store);
    return info.last_epoch;
}

/* --- steps --- */

/* Random changes, in one or two batches, appended to the transaction and made in the model. */
static int build(struct history *history, struct qr_store *store, struct qr_txn *txn,
                 struct model_state *next, uint64_t *random, size_t *records)
{
    struct qr_batch *batch = NULL;
    int rc = qr_batch_create(history->options.compress_level, &batch);
    *records = 0;
    for (uint64_t batches = 1 + sim_below(random, 2); rc == 0 && batches > 0; batches--) {
        for (uint64_t n = 1 + sim_below(random, 4); rc == 0 && n > 0; n--)
            rc = model_change(next, store, txn, batch, random, history->big);
        *records += qr_batch_records(batch);
        if (rc == 0)
            rc = qr_txn_append(txn, batch);
    }
    qr_batch_destroy(batch);
    return rc;
}

/* The state in memory must be that of the newest epoch, whatever has just failed; except that a
 * store without the memory or the reads to go back may be left broken: then it refuses to write. */
static void check_unchanged(struct history *history)
{
    struct qr_txn *txn;
    if (history->may_break) {
        int rc = qr_txn_begin(history->store, &txn);
        if (rc == QALLOW_E_STATE)
            return;
        if (rc == 0)
            qr_txn_abort(txn);
    }
    const struct qr_state *state = qr_store_state(history->store);
    struct qb_u128 digest = model_digest(history->epochs[history->last]);
    struct qb_u128 found = qr_state_digest(state);
    if (qr_state_epoch(state) != history->last || !qb_u128_equal(digest, found))
        history_die(history, "after a failure (%s) the state in memory is not that of epoch %llu",
                    qallow_strerror(history->error), (unsigned long long)history->last);
}

static void made_durable(struct history *history)
{
    history->durable = history->last;
    memcpy(history->labels_durable, history->labels, sizeof history->labels);
    memset(history->label_changes, 0, sizeof history->label_changes);
}

static void enter(struct history *history, struct model_state *next)
{
    history->epochs[++history->last] = next;
    history->wrote = 1;
    if (history->options.sync == QR_SYNC_COMMIT)
        made_durable(history);
}

static int step_commit(struct history *history, int abort)
{
    struct qr_txn *txn;
    struct model_state *next = model_copy(history->epochs[history->last]);
    uint64_t epoch = 0;
    size_t records = 0;
    int rc = qr_txn_begin(history->store, &txn);
    next->epoch++;
    if (rc == 0) {
        rc = build(history, history->store, txn, next, &history->random, &records);
        if (rc < 0 || abort) {
            qr_txn_abort(txn);
            model_free(next);
            if (rc < 0)
                failed(history, rc, "building a transaction");
            check_unchanged(history);
            return rc < 0 ? -1 : 0;
        }
        if (history->candidate_count == HISTORY_CANDIDATES)
            drop_candidates(history);
        history->candidates[history->candidate_count++] = next;
        rc = qr_txn_commit(txn, &epoch);
    } else {
        model_free(next);
    }
    if (rc < 0) {
        failed(history, rc, "committing");
        check_unchanged(history);
        return -1;
    }
    history->candidate_count--; /* it is `next` */
    if (records == 0) {
        model_free(next);
        next = NULL;
    }
    if (epoch != history->last + (records > 0))
        history_die(history, "the commit is epoch %llu", (unsigned long long)epoch);
    if (next) {
        drop_candidates(history);
        enter(history, next);
    }
    return 0;
}

static void forget_behind(struct history *history, uint64_t last)
{
    while (history->last > last)
        model_free(history->epochs[history->last--]);
    for (size_t i = 0; i < HISTORY_LABELS; i++) {
        if (history->labels[i] > last)
            history->labels[i] = 0;
    }
}

/* After a power failure the disk says which of the tries it was. Without one, what is seen need not
 * be on the disk. */
static void adopt_consumers(struct history *history)
{
    struct found_consumers found;
    int rc = check_consumers(history, history->store, &found);
    if (rc < 0)
        failed(history, rc, "asking for consumers");
    for (size_t i = 0; rc == 0 && i < HISTORY_CONSUMERS && history->crashed; i++) {
        history->consumers[i].epoch = found.epochs[i];
        history->consumers[i].tries = 0;
    }
    history->crashed = 0;
}

/* Takes over what an open has found, which check_range has allowed. */
static void adopt(struct history *history)
{
    struct qr_store_info info;
    qr_store_info(history->store, &info);
    check_range(history, &info);
    history->wrote = !info.closed_cleanly;
    if (info.last_epoch > history->last) {
        const struct model_state *found = model_of_last(history, history->store, info.last_epoch);
        history->epochs[++history->last] = model_copy(found);
    }
    drop_candidates(history);
    forget_behind(history, info.last_epoch);
    if (info.last_epoch > 0)
        history->first = info.first_epoch;
    history->first_next = history->first;
    for (size_t i = 0; i < HISTORY_LABELS; i++) {
        char name[16];
        uint64_t epoch = 0;
        label_name(name, i);
        int rc = qr_store_epoch_of_label(history->store, name, &epoch);
        if (rc < 0 && rc != QALLOW_E_EPOCH_NOT_FOUND)
            failed(history, rc, "asking for a label");
        if (rc == 0 && !may_stand_for(history, i, epoch))
            history_die(history, "%s stands for epoch %llu", name, (unsigned long long)epoch);
        history->labels[i] = rc == 0 ? epoch : 0;
    }
    adopt_consumers(history);
    check_unchanged(history);
}

int history_open(struct history *history)
{
    static const enum qr_sync modes[] = {QR_SYNC_COMMIT, QR_SYNC_COMMIT, QR_SYNC_INTERVAL,
                                         QR_SYNC_NONE};
    struct qr_store_options options;
    if (history->store)
        return 0;
    history->options.os = sim_os(history->sim);
    history->options.sync = modes[sim_below(&history->random, 4)];
    history->options.create = !history->exists;
    history->options.ignore_index = sim_below(&history->random, 4) == 0;
    options = history->options;
    int rc = qr_store_open(HISTORY_LOG, &options, &history->store);
    if (rc < 0) {
        history->store = NULL;
        return failed(history, rc, "opening");
    }
    history->exists = 1;
    adopt(history);
    return 0;
}

int history_close(struct history *history)
{
    if (!history->store)
        return 0;
    int rc = qr_store_close(history->store);
    history->store = NULL;
    if (rc < 0)
        return failed(history, rc, "closing");
    if (history->wrote)
        made_durable(history);
    return 0;
}

/* The process dies, the machine does not: nothing is lost, nothing becomes durable. */
static void step_kill(struct history *history)
{
    sim_stop_at(history->sim, 1);
    qr_store_close(history->store);
    sim_stop_at(history->sim, 0);
    history->store = NULL;
}

/* The power fails, and the history goes on with what the disk has kept. */
static void step_crash(struct history *history)
{
    struct sim *image = sim_crash(history->sim, next_random(&history->random), SIM_RANDOM_LOSS);
    step_kill(history);
    sim_destroy(history->sim);
    history->sim = image;
    history->crashed = 1;
}

static int step_label(struct history *history)
{
    size_t i = sim_below(&history->random, HISTORY_LABELS);
    char name[16];
    if (history->last < history->first || history->label_changes[i] == HISTORY_EPOCHS)
        return 0;
    uint64_t epoch =
        history->first + sim_below(&history->random, history->last - history->first + 1);
    label_name(name, i);
    history->labels_since[i][history->label_changes[i]++] = epoch;
    int rc = qr_store_label(history->store, name, epoch);
    if (rc < 0) {
        failed(history, rc, "labelling");
        check_unchanged(history);
        return -1;
    }
    history->labels[i] = epoch;
    history->wrote = 1;
    if (history->options.sync == QR_SYNC_COMMIT)
        made_durable(history);
    return 0;
}

/* One consumer says what it holds, or is forgotten. */
static int step_consumer(struct history *history)
{
    size_t i = sim_below(&history->random, HISTORY_CONSUMERS);
    struct history_consumer *consumer = &history->consumers[i];
    int is_removal = sim_below(&history->random, 3) == 0;
    uint64_t epoch = HISTORY_NO_CONSUMER;
    char name[16];
    if (history->last < history->first || consumer->tries == HISTORY_TRIES)
        return 0;
    if (!is_removal)
        epoch = history->first + sim_below(&history->random, history->last - history->first + 1);
    consumer_name(name, i);
    consumer->tried[consumer->tries++] = epoch;
    int rc = is_removal ? qr_consumer_remove(history->store, name)
                        : qr_consumer_acknowledge(history->store, name, epoch);
    if (rc == QALLOW_E_NO_INPUT && is_removal &&
        (consumer->epoch == HISTORY_NO_CONSUMER || consumer->tries > 1)) {
        consumer->tries--; /* there was none */
        return 0;
    }
    if (rc < 0) {
        failed(history, rc, "a consumer");
        check_unchanged(history);
        return -1;
    }
    consumer->epoch = epoch;
    consumer->tries = 0;
    return 0;
}

/* What surely is needed: a prune beyond it must be refused; and what may be. */
static void needed_epochs(const struct history *history, uint64_t *surely, uint64_t *maybe)
{
    *surely = *maybe = UINT64_MAX;
    for (size_t i = 0; i < HISTORY_CONSUMERS; i++) {
        const struct history_consumer *consumer = &history->consumers[i];
        uint64_t most = consumer->epoch, least = consumer->epoch;
        for (size_t j = 0; j < consumer->tries; j++) {
            most = consumer->tried[j] > most ? consumer->tried[j] : most;
            least = consumer->tried[j] < least ? consumer->tried[j] : least;
        }
        *surely = most < *surely ? most : *surely;
        *maybe = least < *maybe ? least : *maybe;
    }
}

/* What the store now says its oldest epoch is: the header that says so is durable. */
static void pruned(struct history *history)
{
    struct qr_store_info info;
    qr_store_info(history->store, &info);
    check_range(history, &info);
    if (info.first_epoch == history->first)
        return;
    history->first = history->first_next;
    made_durable(history);
    for (size_t i = 0; i < HISTORY_LABELS; i++) {
        if (history->labels[i] < history->first)
            history->labels[i] = 0;
    }
}

static int step_prune(struct history *history)
{
    if (history->last <= history->first)
        return 0;
    if (history->first_next != history->first) /* an earlier one failed: the next open will tell */
        return history_close(history);
    uint64_t keep_from =
        history->first + sim_below(&history->random, history->last - history->first + 1);
    int dry_run = sim_below(&history->random, 4) == 0;
    uint64_t surely, maybe;
    needed_epochs(history, &surely, &maybe);
    if (!dry_run)
        history->first_next = keep_from;
    int rc = qr_store_prune(history->store, keep_from, dry_run, NULL);
    if (rc == 0 && keep_from > surely)
        history_die(history, "epoch %llu was pruned, which a consumer needs",
                    (unsigned long long)surely);
    if (rc == QALLOW_E_BUSY && keep_from > maybe) {
        history->first_next = history->first;
        return 0;
    }
    pruned(history); /* also if it failed then: its index or its hole is missing */
    if (rc == 0 && !dry_run && history->first != keep_from)
        history_die(history, "a prune to epoch %llu did nothing", (unsigned long long)keep_from);
    if (rc < 0) {
        failed(history, rc, "pruning");
        check_unchanged(history);
        return -1;
    }
    return 0;
}

static int step_sync(struct history *history)
{
    int rc = qr_store_sync(history->store);
    if (rc < 0)
        return failed(history, rc, "syncing");
    made_durable(history);
    return 0;
}

int history_step(struct history *history)
{
    if (history_open(history) < 0)
        return -1;
    if (history->last + 2 >= HISTORY_EPOCHS)
        return -1;
    uint64_t what = sim_below(&history->random, 45);
    if (what < 22)
        return step_commit(history, 0);
    if (what < 25)
        return step_commit(history, 1);
    if (what < 29)
        return step_label(history);
    if (what < 33)
        return step_prune(history);
    if (what < 35)
        return step_sync(history);
    if (what < 40)
        return step_consumer(history);
    if (what < 43)
        return history_close(history);
    if (what < 44 || history->keep_disk)
        step_kill(history);
    else
        step_crash(history);
    return 0;
}

void history_extend(struct history *history, struct sim *disk, uint64_t last, uint64_t seed)
{
    unsigned notices = 0;
    struct qr_store *store = open_disk(history, disk, 0, &notices);
    struct model_state *next = model_copy(model_of_last(history, store, last));
    struct qr_txn *txn;
    uint64_t epoch = 0, random = seed;
    size_t records = 0;
    next->epoch++;
    while (records == 0) { /* a transaction may come out empty */
        if (qr_txn_begin(store, &txn) < 0 ||
            build(history, store, txn, next, &random, &records) < 0 ||
            qr_txn_commit(txn, &epoch) < 0)
            history_die(history, "committing after recovery: %s", qallow_error_detail());
    }
    struct sim *image = sim_crash(disk, seed, SIM_DROP_ALL);
    close_checked(history, disk, store);
    store = open_disk(history, image, 0, &notices);
    struct qr_reader *reader;
    if (qr_reader_create(store, 2 << 20, &reader) < 0)
        history_die(history, "no reader: %s", qallow_error_detail());
    const char *differs = model_compare(next, store, qr_store_state(store), reader);
    if (differs)
        history_die(history, "an epoch committed after recovery differs after a crash: %s",
                    differs);
    qr_reader_destroy(reader);
    close_checked(history, image, store);
    sim_destroy(image);
    model_free(next);
}
