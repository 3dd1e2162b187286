/* SPDX-License-Identifier: Apache-2.0 */
/* What the peers that keep small values have in common: Qallow's side of the work, a store of pages
 * of 4 KiB and transactions of 64-byte writes to random places. */
#ifndef QM_PEER_STORE_H
#define QM_PEER_STORE_H

#include "bench/store.h"

enum { QM_PEER_PAGE = 4096, QM_PEER_DELTA = 64, QM_PEER_BATCH = 1000 };

/* The beginning of a peer case's state. */
struct qm_peer_work {
    struct qm_store store;
    struct qm_writer writer;
    uint64_t writes; /* in a transaction */
    uint64_t seed;   /* of the peer's side */
};
int qm_peer_setup(struct qm_context *context, struct qm_peer_work *work, enum qallow_sync sync,
                  uint64_t writes);
int qm_peer_run(struct qm_context *context, uint64_t repeats, struct qm_sample *sample);

/* A random page and place for the peer's side. */
static inline uint32_t qm_peer_place(struct qm_peer_work *work, uint64_t pages, uint32_t *offset)
{
    uint64_t r = qm_random(&work->seed);
    *offset = (uint32_t)((r >> 40) % (QM_PEER_PAGE / QM_PEER_DELTA)) * QM_PEER_DELTA;
    return (uint32_t)(r % pages);
}
/* The bytes to write there: others each time. */
static inline const uint8_t *qm_peer_bytes(struct qm_peer_work *work)
{
    return work->store.source + (qm_random(&work->seed) >> 8) % (QM_SOURCE - QM_PEER_DELTA);
}
/* A function of a shared library, and the pointer that gets it. */
struct qm_peer_function {
    const char *name;
    void *pointer;
};
/* Opens a shared library and fills the pointers, or says in `text` what is missing. For dlclose. */
void *qm_peer_library(const char *name, const struct qm_peer_function *functions, size_t count,
                      char *text, size_t size);

#endif
