/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow stats`: the numbers of a log as lines for people and as JSON, and the table of several
 * logs. Lines leave out what there is none of; JSON always has the same members.
 */
#include <stdio.h>
#include <string.h>

#include "interface/cmd_stats.h"

static const char *const one_kind[QI_STATS_KINDS] = {"?",       "raw",    "file",  "directory",
                                                     "symlink", "config", "tensor"};
static const char *const kind_words[QI_STATS_KINDS] = {
    "?", "raw", "files", "directories", "symlinks", "config", "tensors"};
static const char *const type_words[QI_STATS_TYPES] = {"?",    "create", "attributes", "rename",
                                                       "free", "delta",  "image"};
static const char *const operation_words[QR_METER_OPERATIONS] = {
    "overwrite", "mask", "replace", "remove", "zero", "grow", "copy", "stored"};
static const char *const frame_words[QI_STATS_FRAMES] = {
    "unknown", "data", "commit", "keyframe", "label", "event", "close", "relocation",
    "content"};

static unsigned long long number(uint64_t value) { return value; }

/* --- JSON --- */

/* A member `name` of counts by word; the first one, "?", is left out. */
static void json_counts(cJSON *object, const char *name, const char *const *words,
                        const uint64_t *counts, unsigned from, unsigned count)
{
    cJSON *member = cJSON_CreateObject();

    for (unsigned i = from; i < count; i++)
        qi_json_u64(member, words[i], counts[i]);
    cJSON_AddItemToObject(object, name, member);
}

static void json_deltas(cJSON *object, const struct qi_stats *s)
{
    cJSON *deltas = cJSON_CreateObject();

    qi_json_u64(deltas, "count", s->sizes.count);
    qi_json_u64(deltas, "bytes", s->sizes.sum);
    qi_json_u64(deltas, "mean_bytes", qt_histogram_mean(&s->sizes));
    qi_json_u64(deltas, "p50_bytes", qt_histogram_quantile(&s->sizes, 500));
    qi_json_u64(deltas, "p90_bytes", qt_histogram_quantile(&s->sizes, 900));
    qi_json_u64(deltas, "p99_bytes", qt_histogram_quantile(&s->sizes, 990));
    qi_json_u64(deltas, "max_bytes", s->sizes.max);
    json_counts(deltas, "kinds", kind_words, s->counts.deltas, 1, QI_STATS_KINDS);
    json_counts(deltas, "operations", operation_words, s->counts.operations, 0,
                QR_METER_OPERATIONS);
    cJSON_AddItemToObject(object, "deltas", deltas);
}

static void json_frames_of(cJSON *object, const char *name, const struct qi_stats_frames *frames)
{
    cJSON *member = cJSON_CreateObject();

    qi_json_u64(member, "count", frames->count);
    qi_json_u64(member, "bytes", frames->bytes);
    qi_json_u64(member, "body_bytes", frames->stored);
    qi_json_u64(member, "uncompressed_bytes", frames->uncompressed);
    cJSON_AddItemToObject(object, name, member);
}

static void json_frames(cJSON *object, const struct qi_stats *s)
{
    cJSON *frames = cJSON_CreateObject();

    for (unsigned i = 1; i < QI_STATS_FRAMES; i++)
        json_frames_of(frames, frame_words[i], &s->frames[i]);
    cJSON_AddItemToObject(object, "frames", frames);
    json_frames_of(object, "compressed_frames", &s->compressed);
}

static void json_content(cJSON *object, const struct qi_stats *s)
{
    cJSON *member = cJSON_CreateObject();

    qi_json_u64(member, "whole", s->content.whole);
    qi_json_u64(member, "differences", s->content.based);
    qi_json_u64(member, "bytes", s->content.bytes);
    qi_json_u64(member, "stored_bytes", s->content.stored);
    cJSON_AddItemToObject(object, "content_frames", member);
    qi_json_u64(object, "consumers", s->consumers);
    qi_json_u64(object, "consumers_hold_epoch", s->held_epoch);
}

static void json_identity(cJSON *object, const struct qi_stats *s)
{
    uint8_t digest[16];

    qr_store64(digest, s->digest.lo);
    qr_store64(digest + 8, s->digest.hi);
    qi_json_hex(object, "uuid", s->info.uuid, sizeof s->info.uuid);
    qi_json_hex(object, "digest", digest, sizeof digest);
}

void qi_stats_json(cJSON *object, const struct qi_stats *s, const char *log)
{
    qi_json_path(object, "log", log, strlen(log));
    qi_json_u64(object, "epochs", s->epochs);
    qi_json_u64(object, "first_epoch", s->info.first_epoch);
    qi_json_u64(object, "last_epoch", s->info.last_epoch);
    if (s->epochs > 0) {
        qi_json_time(object, "first_time", s->first_time);
        qi_json_time(object, "last_time", s->last_time);
    }
    json_counts(object, "pages", kind_words, s->pages, 1, QI_STATS_KINDS);
    json_counts(object, "content_bytes", kind_words, s->page_bytes, 1, QI_STATS_KINDS);
    json_counts(object, "records", type_words, s->records, 1, QI_STATS_TYPES);
    qi_json_u64(object, "pieces", s->pieces);
    qi_json_u64(object, "log_bytes", s->info.log_end);
    qi_json_u64(object, "allocated_bytes", s->info.allocated);
    qi_json_u64(object, "epoch_bytes", s->data_bytes);
    qi_json_u64(object, "largest_epoch", s->largest_epoch);
    qi_json_u64(object, "largest_epoch_bytes", s->largest);
    qi_json_u64(object, "keyframes", s->info.keyframes);
    cJSON_AddBoolToObject(object, "index", s->has_index);
    qi_json_u64(object, "index_bytes", s->index_bytes);
    qi_json_i64(object, "owner_pid", s->info.owner_pid);
    json_identity(object, s);
    json_deltas(object, s);
    qi_json_u64(object, "images", s->counts.images);
    json_frames(object, s);
    json_content(object, s);
}

void qi_stats_json_sum(cJSON *object, const struct qi_stats_sum *sum)
{
    qi_json_u64(object, "files", sum->files);
    qi_json_u64(object, "failed", sum->failed);
    qi_json_u64(object, "epochs", sum->epochs);
    qi_json_u64(object, "pages", sum->pages);
    qi_json_u64(object, "content_bytes", sum->content_bytes);
    qi_json_u64(object, "deltas", sum->deltas);
    qi_json_u64(object, "delta_bytes", sum->delta_bytes);
    qi_json_u64(object, "log_bytes", sum->log_bytes);
    qi_json_u64(object, "allocated_bytes", sum->allocated_bytes);
}

/* --- lines --- */

/* "12 overwrite, 3 replace": what there is of each, on the line begun with `title`. Nothing if
 * there is none of any. */
static void print_counts(const char *title, const char *const *words, const uint64_t *counts,
                         unsigned count, int is_wanted)
{
    int any = 0;

    for (unsigned i = 0; i < count; i++)
        if (counts[i] > 0)
            printf("%s%llu %s", any++ ? ", " : title, number(counts[i]), words[i]);
    if (!any && is_wanted)
        fputs(title, stdout);
    if (any || is_wanted)
        putchar('\n');
}

static void print_pages(const struct qi_stats *s)
{
    struct qi_stats_sum amount = qi_stats_amount(s);
    char size[QI_TEXT_MAX];

    printf("pages      %llu, %s\n", number(amount.pages),
           qi_format_size(amount.content_bytes, size));
    for (unsigned i = 0; i < QI_STATS_KINDS; i++)
        if (s->pages[i] > 0)
            printf("             %llu %s, %s\n", number(s->pages[i]),
                   s->pages[i] == 1 ? one_kind[i] : kind_words[i],
                   qi_format_size(s->page_bytes[i], size));
    print_counts("records    ", type_words, s->records, QI_STATS_TYPES, 1);
}

static void print_deltas(const struct qi_stats *s)
{
    char bytes[QI_TEXT_MAX], mean[QI_TEXT_MAX], p50[QI_TEXT_MAX], p90[QI_TEXT_MAX],
        p99[QI_TEXT_MAX], max[QI_TEXT_MAX];
    const char *words[QI_STATS_KINDS];

    if (s->sizes.count == 0)
        return;
    printf("deltas     %llu, %s\n", number(s->sizes.count), qi_format_size(s->sizes.sum, bytes));
    printf("             mean %s, p50 %s, p90 %s, p99 %s, max %s\n",
           qi_format_size(qt_histogram_mean(&s->sizes), mean),
           qi_format_size(qt_histogram_quantile(&s->sizes, 500), p50),
           qi_format_size(qt_histogram_quantile(&s->sizes, 900), p90),
           qi_format_size(qt_histogram_quantile(&s->sizes, 990), p99),
           qi_format_size(s->sizes.max, max));
    for (unsigned i = 0; i < QI_STATS_KINDS; i++)
        words[i] = s->counts.deltas[i] == 1 ? one_kind[i] : kind_words[i];
    print_counts("             of ", words, s->counts.deltas, QI_STATS_KINDS, 0);
    print_counts("operations ", operation_words, s->counts.operations, QR_METER_OPERATIONS, 0);
}

static void print_frames(const struct qi_stats *s)
{
    char stored[QI_TEXT_MAX], uncompressed[QI_TEXT_MAX];
    struct qi_stats_frames sum = {0};

    for (unsigned i = 0; i < QI_STATS_FRAMES; i++) {
        sum.count += s->frames[i].count;
        sum.bytes += s->frames[i].bytes;
    }
    printf("frames     %llu, %s\n", number(sum.count), qi_format_size(sum.bytes, stored));
    for (unsigned i = 0; i < QI_STATS_FRAMES; i++)
        if (s->frames[i].count > 0)
            printf("             %llu %s, %s\n", number(s->frames[i].count), frame_words[i],
                   qi_format_size(s->frames[i].bytes, stored));
    if (s->compressed.count > 0)
        printf("compressed %llu frames, %s to %s\n", number(s->compressed.count),
               qi_format_size(s->compressed.uncompressed, uncompressed),
               qi_format_size(s->compressed.stored, stored));
}

/* What tensors have: chunks of content, and who follows. */
static void print_content(const struct qi_stats *s)
{
    char bytes[QI_TEXT_MAX], stored[QI_TEXT_MAX];

    if (s->content.bytes > 0)
        printf("content    %llu chunks whole, %llu as differences: %s in %s\n",
               number(s->content.whole), number(s->content.based),
               qi_format_size(s->content.bytes, bytes), qi_format_size(s->content.stored, stored));
    if (s->consumers > 0)
        printf("consumers  %llu; the slowest holds epoch %llu\n", number(s->consumers),
               number(s->held_epoch));
}

static void print_epochs(const struct qi_stats *s)
{
    char first[QI_TEXT_MAX], last[QI_TEXT_MAX];

    if (s->epochs == 0)
        printf("epochs     none yet\n");
    else
        printf("epochs     %llu: %llu (%s) to %llu (%s)\n", number(s->epochs),
               number(s->info.first_epoch), qi_format_time(s->first_time, first),
               number(s->info.last_epoch), qi_format_time(s->last_time, last));
}

static void print_file(const struct qi_stats *s)
{
    char a[QI_TEXT_MAX], b[QI_TEXT_MAX];

    printf("size       %s, %s on disk\n", qi_format_size(s->info.log_end, a),
           qi_format_size(s->info.allocated, b));
    if (s->epochs > 0)
        printf("an epoch   %s on average; the largest is %llu with %s\n",
               qi_format_size(s->data_bytes / s->epochs, a), number(s->largest_epoch),
               qi_format_size(s->largest, b));
    printf("keyframes  %llu, %llu epoch%s since the last one\n", number(s->info.keyframes),
           number(s->info.commits_since_keyframe), s->info.commits_since_keyframe == 1 ? "" : "s");
    if (s->has_index)
        printf("index      %s\n", qi_format_size(s->index_bytes, a));
    else
        printf("index      none: it will be made by whoever opens the log for writing\n");
    if (s->info.owner_pid)
        printf("recorder   process %d\n", s->info.owner_pid);
}

void qi_stats_print(const struct qi_stats *s, const char *log)
{
    fputs("log        ", stdout);
    qi_print_name(stdout, log, strlen(log));
    putchar('\n');
    print_epochs(s);
    print_pages(s);
    print_deltas(s);
    if (s->counts.images > 0)
        printf("images     %llu\n", number(s->counts.images));
    print_file(s);
    print_frames(s);
    print_content(s);
}

/* --- the table --- */

void qi_stats_print_head(void)
{
    printf("%9s %9s %10s %9s %10s %10s %10s  %s\n", "EPOCHS", "PAGES", "CONTENT", "DELTAS", "MEAN",
           "SIZE", "ON DISK", "FILE");
}

void qi_stats_print_line(const struct qi_stats_sum *amount, const char *name)
{
    char content[QI_TEXT_MAX], mean[QI_TEXT_MAX], size[QI_TEXT_MAX], disk[QI_TEXT_MAX];

    qi_format_size(amount->deltas ? amount->delta_bytes / amount->deltas : 0, mean);
    printf("%9llu %9llu %10s %9llu %10s %10s %10s  ", number(amount->epochs), number(amount->pages),
           qi_format_size(amount->content_bytes, content), number(amount->deltas),
           amount->deltas ? mean : "-", qi_format_size(amount->log_bytes, size),
           qi_format_size(amount->allocated_bytes, disk));
    qi_print_name(stdout, name, strlen(name));
    putchar('\n');
}
