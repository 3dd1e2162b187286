/* SPDX-License-Identifier: Apache-2.0 */
/* A store of equal pages with random bytes, made and changed through the public C API. */
#ifndef QM_STORE_H
#define QM_STORE_H

#include "bench/case.h"
#include "qallow/store.h"

enum { QM_SOURCE = 1 << 20 }; /* random bytes to write from */

struct qm_store {
    struct qallow_store *store;
    char path[4200];
    uint64_t *pages; /* their ids */
    uint64_t page_count, page_size;
    uint8_t *source;
    uint64_t seed;
};

/* A new log NAME in the case's directory with so many pages. Also finished after a failure. */
int qm_store_create(struct qm_context *context, const char *name, enum qallow_sync sync,
                    uint64_t page_count, uint64_t page_size, struct qm_store *store);
/* Closes the store, removes its files; legal on a zeroed one. */
void qm_store_finish(struct qm_store *store);

/* One transaction of `writes` writes of `length` bytes, each to a random page and place among the
 * pages whose number is `thread` modulo `threads`. */
struct qm_writer {
    struct qm_store *store;
    uint64_t seed;
    unsigned thread, threads;
    size_t length;
};
int qm_store_write(struct qm_writer *writer, uint64_t writes);

/* One transaction that writes `count` random pages anew, from a cold source. */
struct qm_cold_source;
int qm_store_write_pages(struct qm_store *store, struct qm_cold_source *source, uint64_t count);
/* Transactions of that kind until the log is so long, and then on until a keyframe has just been
 * written, so that all such logs have the same to read behind it. */
int qm_store_lengthen(struct qm_context *context, struct qm_store *store,
                      struct qm_cold_source *source, uint64_t log_bytes);
int qm_store_log_bytes(struct qm_store *store, uint64_t *log_bytes, uint64_t *keyframes);

/* Closes the log, which stays, and gives the page ids and the rest back with qm_store_finish. */
int qm_store_close(struct qm_store *store);

/* The state of an epoch (0: the newest) as bytes at `memory`, verified: reads the log whole instead
 * of its index if `whole`, and puts every page's content where its number says, in `threads`
 * threads. `memory` holds page_count * page_size bytes. */
int qm_store_load(const struct qm_store *store, const char *path, uint64_t epoch, int whole,
                  unsigned threads, uint8_t *memory);

#endif
