/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reference model of the store: every epoch as a plain array of pages with plain bytes. It knows
 * nothing of logs, pieces or deltas, and computes the digest from its definition in
 * docs/formats/tlog.md. Also the random changes that histories are made of.
 */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/batch.h"
#include "runtime/store.h"

/* Bytes that several epochs share. */
struct model_bytes {
    unsigned references;
    size_t length;
    struct qb_u128 sum; /* of the cells, for the page that has them */
    uint8_t at[];
};

struct model_page {
    uint64_t id, parent;
    uint64_t version;
    char name[48];
    size_t name_length;
    enum qr_kind kind;
    uint32_t mode;
    int64_t mtime_ns;
    uint8_t extra[16];
    uint16_t extra_length;
    struct model_bytes *bytes;
};

enum { MODEL_PAGES = 64 };
struct model_state {
    uint64_t epoch, next_id;
    size_t count;
    struct model_page pages[MODEL_PAGES]; /* ascending ids */
};

struct model_state *model_copy(const struct model_state *state); /* NULL: epoch 0 */
void model_free(struct model_state *state);
struct qb_u128 model_digest(const struct model_state *state);

/* Makes one random change to the model and puts the same change into the batch, or in front of it
 * into the transaction. 0, or the error of a function of the store (then the model is not to be
 * used any more). `big` allows pages of a megabyte and more. */
int model_change(struct model_state *state, struct qr_store *store, struct qr_txn *txn,
                 struct qr_batch *batch, uint64_t *random, int big);

/* Compares a state of the store with the model's, content included. NULL if they agree, else what
 * differs (static storage). */
const char *model_compare(const struct model_state *expected, struct qr_store *store,
                          const struct qr_state *state, struct qr_reader *reader);

#endif
