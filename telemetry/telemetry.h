/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Telemetry: one table of metrics, updated from anywhere with relaxed atomics, written by encoders.
 * CSV is in long form: time,metric,label,value,unit (docs/telemetry.md).
 */
#ifndef QT_TELEMETRY_H
#define QT_TELEMETRY_H

#include <stdint.h>

enum qt_kind { QT_COUNTER, QT_GAUGE, QT_HISTOGRAM };

/* X(identifier, name, unit, kind, help). The order is the order of the CSV rows: append only. */
#define QT_METRICS(X)                                                                              \
    X(LOG_BYTES, "log_bytes_total", "bytes", QT_COUNTER, "bytes appended to the log")              \
    X(LOG_COMMITS, "log_commits_total", "1", QT_COUNTER, "epochs committed")                       \
    X(LOG_RECORDS, "log_records_total", "1", QT_COUNTER, "records appended")                       \
    X(LOG_SYNCS, "log_syncs_total", "1", QT_COUNTER, "fdatasync calls on the log")                 \
    X(LOG_SYNC_SECONDS, "log_sync_seconds", "seconds", QT_HISTOGRAM, "duration of a sync")         \
    X(LOG_COMMIT_SECONDS, "log_commit_seconds", "seconds", QT_HISTOGRAM, "duration of a commit")   \
    X(LOG_IMAGES, "log_images_total", "1", QT_COUNTER, "page images written")                      \
    X(LOG_KEYFRAMES, "log_keyframes_total", "1", QT_COUNTER, "keyframes written")                  \
    X(RECOVERY_CUT_BYTES, "recovery_cut_bytes", "bytes", QT_GAUGE, "bytes cut from the tail") \
    X(RECOVERY_SCANNED_BYTES, "recovery_scanned_bytes", "bytes", QT_GAUGE, "bytes read at open")   \
    X(REPLAY_BYTES, "replay_bytes_total", "bytes", QT_COUNTER, "content bytes given back")         \
    X(REPLAY_PAGES, "replay_pages_total", "1", QT_COUNTER, "pages given back")                     \
    X(PAGES, "pages", "1", QT_GAUGE, "pages in the newest state")                                  \
    X(PAGE_BYTES, "page_bytes", "bytes", QT_GAUGE, "content bytes in the newest state")            \
    X(WATCH_EVENTS, "watch_events_total", "1", QT_COUNTER, "file-system events read")              \
    X(WATCH_OVERFLOWS, "watch_overflows_total", "1", QT_COUNTER, "event queue overflows")          \
    X(WATCH_RESCANS, "watch_rescans_total", "1", QT_COUNTER, "full rescans of the tree")           \
    X(WATCH_SYNTHETIC, "watch_synthetic_total", "1", QT_COUNTER, "changes found without an event") \
    X(WATCHES, "watches", "1", QT_GAUGE, "directories watched")                                    \
    X(FILES_READ, "files_read_total", "1", QT_COUNTER, "files whose content was read")             \
    X(FILES_READ_BYTES, "files_read_bytes_total", "bytes", QT_COUNTER, "content bytes read")       \
    X(FILES_SKIPPED, "files_skipped", "1", QT_GAUGE, "entries that could not be recorded")         \
    X(SETTLE_SECONDS, "settle_seconds", "seconds", QT_HISTOGRAM, "first event to commit")          \
    X(WORKER_BUSY_SECONDS, "worker_busy_seconds_total", "seconds", QT_COUNTER, "of all workers")

enum qt_metric {
#define QT_ENUM(id, name, unit, kind, help) QT_##id,
    QT_METRICS(QT_ENUM)
#undef QT_ENUM
    QT_METRIC_COUNT
};

/* Counters and gauges of seconds are kept in nanoseconds. Thread-safety: safe, no locks. */
void qt_add(enum qt_metric metric, uint64_t amount);
void qt_set(enum qt_metric metric, uint64_t value);
void qt_observe_ns(enum qt_metric histogram, uint64_t nanoseconds);
uint64_t qt_get(enum qt_metric metric); /* of a histogram: how many were observed */
void qt_reset(void);

/* The CSV writer: appends rows for every metric to `path`; the header goes in once; a file with
 * another header is renamed to PATH.1 (.2, ...) first. Writes are whole lines; a failed write is
 * reported once by qt_csv_write's result (negative errno), never fatal to the caller. A path that
 * another process writes is -EBUSY. Not thread-safe; one writer. */
struct qt_csv;
int qt_csv_open(const char *path, struct qt_csv **csv);
int qt_csv_write(struct qt_csv *csv);
void qt_csv_close(struct qt_csv *csv);

/* Log lines for people, on stderr: "qallow: text". Each call site may say at most one line per
 * second; what was suppressed is counted and said with its next line ("suppressed 41"). */
enum qt_level { QT_QUIET, QT_ERROR, QT_WARN, QT_INFO, QT_DEBUG };
void qt_log_level_set(enum qt_level level);
struct qt_throttle {
    uint64_t last_ns;
    uint64_t suppressed;
};
#define qt_log(level, ...)                                                                         \
    do {                                                                                           \
        static struct qt_throttle qt_site;                                                         \
        qt_log_at(&qt_site, level, __VA_ARGS__);                                                   \
    } while (0)
void qt_log_at(struct qt_throttle *site, enum qt_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
