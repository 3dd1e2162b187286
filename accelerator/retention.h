/* SPDX-License-Identifier: Apache-2.0 */
/* Which epochs may go: turns "keep this many, this long, this much" into the first epoch to
 * keep. */
#ifndef QA_RETENTION_H
#define QA_RETENTION_H

#include "runtime/store.h"

struct qa_retention {
    uint64_t keep_epochs;  /* 0: no limit */
    int64_t keep_time_ns;  /* 0: no limit */
    uint64_t keep_bytes;   /* of log; 0: no limit */
};

/* *keep_from is the oldest epoch that all limits allow to keep; the newest epoch is always kept,
 * and so is the one that was current keep_time_ns before `now_ns`. It is the first epoch of the
 * log when nothing has to go (0 if the log is empty). */
int qa_retention_keep_from(struct qr_store *store, const struct qa_retention *retention,
                           int64_t now_ns, uint64_t *keep_from);

#endif
