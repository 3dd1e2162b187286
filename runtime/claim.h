/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One writer at a time of what is made under a temporary name and gets its own when it is whole.
 * Without this a second writer would remove the first one's unfinished work, as if a kill had left
 * it, and the first would give the second one's unfinished work the name.
 *
 * A restore locks what it makes itself (sources/target.h). An export cannot: the log it makes is
 * created by a rename, so that the file which was locked would not be the one that has the name.
 */
#ifndef QR_CLAIM_H
#define QR_CLAIM_H

#include "runtime/os.h"

/* Behind the name of the target. Nothing with this ending is recorded. */
#define QR_CLAIM_ENDING ".lock.qallow-tmp"

struct qr_claim {
    const struct qr_os *os;
    char *path; /* of the lock file; NULL: nothing is held */
    int file;
};

/* Keeps others from writing `target` until qr_claim_release. BUSY if somebody does, NO_MEMORY.
 * Where no lock can be had (a file system without locks, a directory in which nothing can be made)
 * it holds nothing and returns 0: making the target itself will say what is wrong. */
int qr_claim_take(struct qr_claim *claim, const struct qr_os *os, const char *target);

/* After the rename. Of one that holds nothing (zeros): nothing. Keeps the error detail. */
void qr_claim_release(struct qr_claim *claim);

#endif
