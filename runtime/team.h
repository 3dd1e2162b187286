/* SPDX-License-Identifier: Apache-2.0 */
/* Work on numbered items, shared out among threads. */
#ifndef QR_TEAM_H
#define QR_TEAM_H

#include <stdint.h>

struct qr_team_work {
    /* Makes what one thread works with; NULL: nothing. A thread for which it fails does not take
     * part, unless it is the caller's. */
    int (*begin)(void *context, void **own);
    /* Items [first, end), in order, until one fails. */
    int (*work)(void *context, void *own, uint64_t first, uint64_t end);
    void (*end)(void *context, void *own); /* NULL: nothing */
};

enum { QR_TEAM_MAX = 256 };

/* Works on items [0, count) in shares of `share`, in `threads` threads of which the caller's is one
 * (fewer if they cannot be had). A share that is taken is worked on to its end or its first
 * failure, and no other is taken once something has failed: so the failure returned, with its
 * detail, is that of the first item that fails, whatever the number of threads. */
int qr_team(int threads, uint64_t count, uint64_t share, const struct qr_team_work *work,
            void *context);

#endif
