/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of probes share. */
#ifndef QA_CAPABILITY_INTERNAL_H
#define QA_CAPABILITY_INTERNAL_H

#include "accelerator/capability.h"

/* Fills in what was found; `remedy` may be NULL. */
void qa_found(struct qa_capability *found, enum qa_verdict verdict, int result, const char *remedy,
              const char *format, ...) __attribute__((format(printf, 5, 6)));

/* "1.5 GiB" */
enum { QA_SIZE_TEXT = 32 };
const char *qa_size_text(uint64_t bytes, char text[QA_SIZE_TEXT]);

/* The memory of the cache, in the first place that can be used (*elsewhere: it is not the very
 * first), or why none can. */
void qa_probe_cache(uint64_t needed, struct qa_capability *found, int *elsewhere);

#endif
