/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The body of a CONTENT frame: bytes of content as elements of 1, 2, 4 or 8 bytes, whole or as
 * what is different from other content (docs/formats/tlog.md, "CONTENT body").
 */
#ifndef QR_ELEMENTS_H
#define QR_ELEMENTS_H

#include "runtime/bytes.h"
#include "runtime/page.h"

enum qr_coding {
    QR_CODING_PLAIN,   /* the bytes */
    QR_CODING_PLANES,  /* the first bytes of all elements, then the second ones, ... */
    QR_CODING_CHANGES, /* of the base's elements some are different: which, and how */
    QR_CODING_ALL,     /* all of the base's elements are different: how */
};
enum qr_values { QR_VALUES_NEW, QR_VALUES_DIFFERENCE };

enum {
    QR_ELEMENTS_COST = 256,         /* of a frame with a base, besides what it stores */
    QR_ELEMENTS_COST_MAX = 4 << 20, /* of a chain of frames */
};

/* What stands in front of a body's streams. */
struct qr_elements {
    uint32_t length; /* of the content */
    uint8_t coding, width, values;
    qr_ref base;    /* of content of the same length; QR_REF_ZERO: it has none */
    uint64_t cost;  /* of decoding it and all that it is based on; 0 without a base */
    uint32_t count; /* CHANGES: of elements */
    struct qr_cursor streams;
};
/* SERIALIZATION. Says nothing yet about the streams. */
int qr_elements_parse(const uint8_t *body, size_t stored, struct qr_elements *elements);
/* `content` holds elements->length bytes: the base if there is one. `scratch` is grown as needed.
 * SERIALIZATION, NO_MEMORY; then `content` is undefined. */
struct qr_elements_scratch {
    uint8_t *bytes;
    size_t capacity;
    void *decompressor; /* ZSTD_DCtx, made when needed */
};
void qr_elements_scratch_finish(struct qr_elements_scratch *scratch);
int qr_elements_decode(const struct qr_elements *elements, uint8_t *content,
                       struct qr_elements_scratch *scratch);

/* One per thread. */
struct qr_elements_encoder;
int qr_elements_encoder_create(int compress_level, struct qr_elements_encoder **encoder);
void qr_elements_encoder_destroy(struct qr_elements_encoder *encoder);

/* What is to be encoded. `length` is 1..QR_BODY_MAX / 2 and a multiple of `width`. */
struct qr_elements_job {
    const uint8_t *new_, *old; /* old: the base's content, or NULL */
    size_t length;
    unsigned width;
    qr_ref base;
    uint64_t base_cost, cost_limit; /* beyond the limit it is written whole */
};
/* The smallest body, or nearly so: *body belongs to the encoder, until the next call. *size 0: old
 * and new are equal. NO_MEMORY. */
int qr_elements_encode(struct qr_elements_encoder *encoder, const struct qr_elements_job *job,
                       const uint8_t **body, size_t *size);
/* After a call with an `old`: the numbers of the cells of QB_CELL bytes in which they differ,
 * ascending. The encoder's, until the next call. */
const uint32_t *qr_elements_changed(const struct qr_elements_encoder *encoder, size_t *count);

#endif
