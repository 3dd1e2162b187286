/* SPDX-License-Identifier: Apache-2.0 */
/* What the cache names content by: XXH3-128, or SHA-256 where it must resist an adversary. */
#ifndef QA_CONTENT_HASH_H
#define QA_CONTENT_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "qallow/accelerator.h"

enum { QA_HASH_BYTES_MAX = 32 };

/* What one thread takes to hash one file after the other. */
struct qa_content_hash;

/* ARGUMENT: no such hash. UNAVAILABLE: this build has none. NO_MEMORY. */
int qa_content_hash_create(enum qallow_hash kind, struct qa_content_hash **hash);
void qa_content_hash_destroy(struct qa_content_hash *hash); /* NULL is legal */
/* Bytes that a hash of this kind has; 0: there is no such kind. */
size_t qa_content_hash_size(enum qallow_hash kind);

/* The hash of n bytes; the rest of `result` is zeroed. NO_MEMORY. */
int qa_content_hash_of(struct qa_content_hash *hash, const void *bytes, size_t n,
                       uint8_t result[QA_HASH_BYTES_MAX]);
/* The same of bytes that come in parts. */
int qa_content_hash_begin(struct qa_content_hash *hash);
int qa_content_hash_add(struct qa_content_hash *hash, const void *bytes, size_t n);
int qa_content_hash_end(struct qa_content_hash *hash, uint8_t result[QA_HASH_BYTES_MAX]);

#endif
