/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Telemetry: one table of metrics, updated from anywhere with relaxed atomics, written by encoders:
 * as rows of a CSV file in long form, and as Prometheus text (docs/telemetry.md).
 */
#ifndef QT_TELEMETRY_H
#define QT_TELEMETRY_H

#include <stdint.h>

/* The last three have a value for each worker or each tree instead of one. */
enum qt_kind {
    QT_COUNTER,
    QT_GAUGE,
    QT_HISTOGRAM,
    QT_WORKER_COUNTER,
    QT_WORKER_GAUGE,
    QT_TREE_GAUGE
};

/* As many workers as have a value of their own; `--threads` has no more. */
enum { QT_WORKERS = 1024 };

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
    X(RECOVERY_CUT_BYTES, "recovery_cut_bytes", "bytes", QT_TREE_GAUGE, "bytes cut from the tail") \
    X(RECOVERY_SCANNED_BYTES, "recovery_scanned_bytes", "bytes", QT_TREE_GAUGE,                    \
      "bytes read at open")                                                                        \
    X(REPLAY_BYTES, "replay_bytes_total", "bytes", QT_COUNTER, "content bytes given back")         \
    X(REPLAY_PAGES, "replay_pages_total", "1", QT_COUNTER, "pages given back")                     \
    X(PAGES, "pages", "1", QT_TREE_GAUGE, "pages in the newest state")                             \
    X(PAGE_BYTES, "page_bytes", "bytes", QT_TREE_GAUGE, "content bytes in the newest state")       \
    X(WATCH_EVENTS, "watch_events_total", "1", QT_COUNTER, "file-system events read")              \
    X(WATCH_OVERFLOWS, "watch_overflows_total", "1", QT_COUNTER, "event queue overflows")          \
    X(WATCH_RESCANS, "watch_rescans_total", "1", QT_COUNTER, "full rescans of the tree")           \
    X(WATCH_SYNTHETIC, "watch_synthetic_total", "1", QT_COUNTER, "changes found without an event") \
    X(WATCHES, "watches", "1", QT_TREE_GAUGE, "directories watched")                               \
    X(FILES_READ, "files_read_total", "1", QT_COUNTER, "files whose content was read")             \
    X(FILES_READ_BYTES, "files_read_bytes_total", "bytes", QT_COUNTER, "content bytes read")       \
    X(FILES_SKIPPED, "files_skipped", "1", QT_TREE_GAUGE, "entries that could not be recorded")    \
    X(SETTLE_SECONDS, "settle_seconds", "seconds", QT_HISTOGRAM, "first event to commit")          \
    X(WORKER_BUSY_SECONDS, "worker_busy_seconds_total", "seconds", QT_COUNTER, "of all workers")   \
    X(CACHE_HITS, "cache_hits", "1", QT_TREE_GAUGE, "look-ups of readers that found the path")     \
    X(CACHE_MISSES, "cache_misses", "1", QT_TREE_GAUGE, "look-ups of readers that found nothing")  \
    X(CACHE_EVICTIONS, "cache_evictions_total", "1", QT_COUNTER,                                   \
      "entries or contents dropped for want of room")                                              \
    X(CACHE_FILES, "cache_files", "1", QT_TREE_GAUGE, "paths in the cache")                        \
    X(CACHE_BYTES, "cache_bytes", "bytes", QT_TREE_GAUGE, "sum of the sizes of the cached files")  \
    X(CACHE_MEMORY_BYTES, "cache_memory_bytes", "bytes", QT_TREE_GAUGE,                            \
      "memory that the cache takes")                                                               \
    X(WATCH_COALESCED, "watch_coalesced_total", "1", QT_COUNTER, "events of paths already dirty")  \
    X(QUEUE_DEPTH, "queue_depth", "1", QT_TREE_GAUGE, "dirty paths that wait")                     \
    X(HASH_BYTES, "hash_bytes_total", "bytes", QT_COUNTER, "content bytes hashed for the cache")   \
    X(EVENT_TO_CACHE_SECONDS, "event_to_cache_seconds", "seconds", QT_HISTOGRAM,                   \
      "event read to its file current in the cache")                                               \
    X(EVENT_TO_DURABLE_SECONDS, "event_to_durable_seconds", "seconds", QT_HISTOGRAM,               \
      "event read to its change durable in the log")                                               \
    X(PER_WORKER_BUSY_SECONDS, "per_worker_busy_seconds_total", "seconds", QT_WORKER_COUNTER,      \
      "reading and hashing")                                                                       \
    X(PER_WORKER_UTILIZATION, "per_worker_utilization_ratio", "ratio", QT_WORKER_GAUGE,            \
      "busy part of the time since the last value")                                                \
    X(WATCHES_LIMIT, "watches_limit", "1", QT_GAUGE, "directories that may be watched")            \
    X(POLLED_DIRECTORIES, "polled_directories", "1", QT_TREE_GAUGE,                                \
      "directories compared at intervals instead")                                                 \
    X(WORKER_THREADS, "worker_threads", "1", QT_TREE_GAUGE,                                        \
      "threads that read and hash for the cache")                                                  \
    X(START_TIME_SECONDS, "start_time_seconds", "seconds", QT_TREE_GAUGE,                          \
      "when the keeper started, since 1970")                                                       \
    X(UPTIME_SECONDS, "uptime_seconds", "seconds", QT_TREE_GAUGE, "since the keeper started")      \
    X(GPU_SENT_BYTES, "gpu_sent_bytes_total", "bytes", QT_COUNTER, "over the bus to a GPU")        \
    X(GPU_RECEIVED_BYTES, "gpu_received_bytes_total", "bytes", QT_COUNTER,                         \
      "over the bus from a GPU")                                                                   \
    X(GPU_LAUNCHES, "gpu_launches_total", "1", QT_COUNTER, "operations begun on a GPU")            \
    X(VM_TICKS, "vm_ticks_total", "1", QT_COUNTER, "ticks that machines finished")                 \
    X(VM_TICK_SECONDS, "vm_tick_seconds", "seconds", QT_HISTOGRAM,                                 \
      "a tick, with its derived pages and its epoch in the log")                                   \
    X(VM_FUEL, "vm_fuel_total", "1", QT_COUNTER, "fuel used by these ticks")                       \
    X(VM_EMITTED, "vm_emitted_total", "1", QT_COUNTER, "values emitted by these ticks")            \
    X(VM_INPUTS, "vm_inputs_total", "1", QT_COUNTER, "epochs in which inputs changed")             \
    X(VM_COMPUTED, "vm_computed_total", "1", QT_COUNTER, "computations of derived pages")          \
    X(VM_COMPUTED_EQUAL, "vm_computed_equal_total", "1", QT_COUNTER,                               \
      "those that gave the same bytes again")                                                      \
    X(VM_COMPUTED_BYTES, "vm_computed_bytes_total", "bytes", QT_COUNTER,                           \
      "bytes of derived pages that were computed")                                                 \
    X(TENSORS_SAVED, "tensors_saved_total", "1", QT_COUNTER, "tensors of files that were saved")   \
    X(TENSORS_CHANGED, "tensors_changed_total", "1", QT_COUNTER,                                   \
      "those that were new or had other content")                                                  \
    X(TENSOR_READ_BYTES, "tensor_read_bytes_total", "bytes", QT_COUNTER, "of the files saved")     \
    X(TENSOR_CONTENT_BYTES, "tensor_content_bytes_total", "bytes", QT_COUNTER,                     \
      "of content written to the log for them")                                                    \
    X(TENSOR_SAVE_SECONDS, "tensor_save_seconds", "seconds", QT_HISTOGRAM, "duration of a save")   \
    X(TARGETS_APPLIED, "targets_applied_total", "1", QT_COUNTER,                                   \
      "epochs that a follower put in place")                                                       \
    X(GPU_FAILURES, "gpu_failures_total", "1", QT_COUNTER,                                         \
      "calls to a GPU that failed, a missing one included")

enum qt_metric {
#define QT_ENUM(id, name, unit, kind, help) QT_##id,
    QT_METRICS(QT_ENUM)
#undef QT_ENUM
        QT_METRIC_COUNT
};

/* Seconds are kept in nanoseconds, ratios in billionths. Thread-safety: safe, no locks. */
void qt_add(enum qt_metric metric, uint64_t amount);
void qt_set(enum qt_metric metric, uint64_t value);
void qt_observe_ns(enum qt_metric histogram, uint64_t nanoseconds);
/* Of a histogram: how many were observed; of workers: the sum. */
uint64_t qt_get(enum qt_metric metric);
void qt_reset(void);

/* Sets the value of one worker (0, 1, ...; nothing from QT_WORKERS on). A metric has as many
 * workers as the highest that was ever set says. Safe as above. */
void qt_worker_set(enum qt_metric metric, unsigned worker, uint64_t value);
/* How long each of `count` workers has been busy since it began, as of `now_ns` (monotonic): sets
 * WORKER_BUSY_SECONDS to the sum, the others to each worker's share, and the utilization to what
 * part of the time since the call before this was (0 at the first call). Workers beyond QT_WORKERS
 * are only in the sum. One thread calls it, before it writes. */
void qt_workers_busy(const uint64_t *busy_ns, unsigned count, uint64_t now_ns);

/* A directory (or file) that this process keeps. While it is open, what the thread that has opened
 * it sets and gets of metrics per tree is this tree's. `name` is absolute, UTF-8 and without
 * control characters (qr_quotez() makes it so); it becomes a label. Opened and closed by one
 * thread. -1: no memory. */
struct qt_tree;
int qt_tree_open(const char *name, struct qt_tree **tree);
void qt_tree_close(struct qt_tree *tree); /* NULL is legal */
/* From now on `refresh` is called before anybody writes, on their thread, to set (qt_tree_set) what
 * changes by itself and how long each of the tree's `workers` has been busy; NULL ends that. Never
 * called while somebody has qt_trees_lock(). */
void qt_tree_refresh_by(struct qt_tree *tree, unsigned workers,
                        void (*refresh)(void *context, uint64_t *busy_ns), void *context);
void qt_tree_set(struct qt_tree *tree, enum qt_metric metric, uint64_t value);
/* Calls them all, and qt_workers_busy(). To be called before writing. */
void qt_trees_refresh(uint64_t now_ns);
/* The first of the trees (for encoders), none of which comes or goes meanwhile. */
const struct qt_tree *qt_trees_lock(void);
void qt_trees_unlock(void);

/* What part of so much time somebody was busy, 0 to 1, in steps of a ten-thousandth. What is
 * reported late could make it more than all of it. */
static inline double qt_utilization(uint64_t busy, uint64_t time)
{
    uint64_t steps = time ? (uint64_t)((double)busy / (double)time * 1e4 + 0.5) : 0;
    return (double)(steps < 10000 ? steps : 10000) / 1e4;
}

/* The CSV writer: appends rows for every metric to `path`; the header goes in once; a file with
 * another header is renamed to PATH.1 (.2, ...) first. Writes are whole lines; a failed write is
 * reported once by qt_csv_write's result (negative errno), never fatal to the caller. A path that
 * another process writes is -EBUSY. Not thread-safe; one writer. */
struct qt_csv;
int qt_csv_open(const char *path, struct qt_csv **csv);
int qt_csv_write(struct qt_csv *csv);
void qt_csv_close(struct qt_csv *csv);

/* Replaces the file at `path` by the Prometheus text of now, by rename: whoever reads sees the old
 * text or the new one, whole. `process` becomes the label `process` of every sample, so that the
 * files of several processes can be collected together; UTF-8 (qr_quotez() makes it so), or NULL:
 * none. Not fatal, negative errno, the old file stays: -ENOTSUP for a path that is a device, pipe
 * or socket, -EBUSY while another process or thread writes the same file. The text is prepared in
 * PATH QT_TEMPORARY, a name that no tree is recorded with. */
#define QT_TEMPORARY ".qallow-tmp"
int qt_prometheus_write(const char *path, const char *process);

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
