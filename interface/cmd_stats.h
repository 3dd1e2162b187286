/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of `qallow stats` share. */
#ifndef QI_CMD_STATS_H
#define QI_CMD_STATS_H

#include "interface/epochs.h"
#include "runtime/meter.h"

enum {
    QI_STATS_KINDS = QR_METER_KINDS, /* of pages, enum qr_kind; 0 is none */
    QI_STATS_TYPES = 7,              /* of records, enum qr_record_type; 0 is none */
    QI_STATS_FRAMES = 9,             /* enum qr_frame_type; 0: of a later version */
};

struct qi_stats_frames {
    uint64_t count, bytes;         /* in the file */
    uint64_t stored, uncompressed; /* of the bodies */
};

/* Content by itself, as tensors have it. */
struct qi_stats_content {
    uint64_t whole, based; /* chunks; the latter as what is different from other ones */
    uint64_t bytes, stored;
};

/* What one file amounts to. */
struct qi_stats {
    struct qr_store_info info;
    struct qb_u128 digest;
    uint64_t pages[QI_STATS_KINDS], page_bytes[QI_STATS_KINDS];
    uint64_t pieces;
    int64_t first_time, last_time;
    uint64_t epochs, data_bytes; /* frames of epochs, without keyframes and labels */
    uint64_t largest, largest_epoch;
    uint64_t index_bytes;
    int has_index;
    /* its history, as far as it is kept */
    uint64_t records[QI_STATS_TYPES];
    struct qr_apply_counts counts;
    struct qt_histogram sizes; /* of deltas, bytes */
    struct qi_stats_frames frames[QI_STATS_FRAMES], compressed;
    struct qi_stats_content content;
    uint64_t consumers, held_epoch; /* who follow; the oldest epoch that one of them holds */
    uint64_t open_bytes, old_end; /* of the delta whose parts are being met */
};

/* A sum of several. */
struct qi_stats_sum {
    uint64_t files, failed;
    uint64_t epochs, pages, content_bytes, deltas, delta_bytes, log_bytes, allocated_bytes;
};

/* Reads all of it. `log` is the path of the store. */
int qi_stats_gather(struct qr_store *store, const char *log, struct qi_stats *stats);
/* As an amount of its own: files is 1. */
struct qi_stats_sum qi_stats_amount(const struct qi_stats *stats);
void qi_stats_add(struct qi_stats_sum *sum, const struct qi_stats_sum *more);

void qi_stats_print(const struct qi_stats *stats, const char *log);
void qi_stats_json(cJSON *object, const struct qi_stats *stats, const char *log);
/* A table with a line for each file. */
void qi_stats_print_head(void);
void qi_stats_print_line(const struct qi_stats_sum *amount, const char *name);
void qi_stats_json_sum(cJSON *object, const struct qi_stats_sum *sum);

#endif
