/* SPDX-License-Identifier: Apache-2.0 */
/* Setting the per-thread error detail, and assertions that stay on in release builds. */
#ifndef QR_ERROR_H
#define QR_ERROR_H

#include "qallow/error.h"

/* Records "format…" as this thread's detail and returns `result`, so that failing is one line:
 *     return qr_fail(QALLOW_E_DAMAGED, "%s: frame at %llu: …", path, off);
 * Paths and names from a log are passed through qr_quote() first. */
int qr_fail(int result, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Like qr_fail, and appends ": strerror(err)". Picks the result from err (ENOSPC, EDQUOT ->
 * NO_SPACE; EACCES, EPERM, EROFS -> PERMISSION; ENOENT, ENOTDIR -> NO_INPUT; ENOMEM -> NO_MEMORY;
 * else IO). */
int qr_fail_errno(int err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* `name` with control bytes, backslash and invalid UTF-8 written as \xHH, so that it is safe to
 * print in one line. Returns one of eight per-thread buffers, reused in turn; long names are cut
 * in the middle and say so. */
const char *qr_quote(const void *name, unsigned long length);
const char *qr_quotez(const char *name);

/* For our own mistakes: an invariant of ours does not hold. Stays on in release builds and never
 * returns. The library itself prints nothing: the handler (the command and the tests install one)
 * says what failed and leaves by exiting or a long jump; without a handler, or if it returns, the
 * process is aborted, because to go on would be to write wrong data. */
#define qr_assert(cond) \
    ((cond) ? (void)0 : qr_assert_failed(#cond, __FILE__, __LINE__))
_Noreturn void qr_assert_failed(const char *cond, const char *file, int line);
typedef void (*qr_assert_handler)(const char *cond, const char *file, int line);
/* NULL removes the handler. Thread-safety: safe. */
void qr_set_assert_handler(qr_assert_handler handler);

#endif
