/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors. Every Qallow function that can fail returns an int: 0 (QALLOW_OK) or one of the negative
 * values below. The values are pinned: they never change and are never reused. They are grouped by
 * tens. What exactly happened (path, page, epoch, offset, errno) is one line of text, kept per
 * thread: qallow_error_detail().
 */
#ifndef QALLOW_ERROR_H
#define QALLOW_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define QALLOW_API __attribute__((visibility("default")))
#else
#define QALLOW_API
#endif

enum qallow_result {
    QALLOW_OK = 0,

    /* the caller */
    QALLOW_E_ARGUMENT = -1,       /* an argument is not what the function accepts */
    QALLOW_E_STATE = -2,          /* not possible now: read-only, already committed, poisoned */
    QALLOW_E_UNSUPPORTED_LOCATION = -3, /* this build or machine has no such page location */

    /* pages and deltas */
    QALLOW_E_PAGE_NOT_FOUND = -10, /* no page with this id or name in this epoch */
    QALLOW_E_PAGE_EXISTS = -11,    /* the name is taken */
    QALLOW_E_INVALID_DELTA = -12,  /* edits overlap, are unsorted, or reach beyond the page */
    QALLOW_E_EPOCH_NOT_FOUND = -13, /* beyond the newest, pruned, or no such label or time */
    QALLOW_E_CYCLE = -14,           /* a page would be computed from itself */
    QALLOW_E_FUNCTION = -15,        /* a function that computes a page failed in its own way */

    /* bytes that were written earlier */
    QALLOW_E_DAMAGED = -20,        /* a checksum, chain or digest does not match */
    QALLOW_E_SERIALIZATION = -21,  /* well-formed bytes that mean nothing valid */
    QALLOW_E_VERSION = -22,        /* written by a newer format version */
    QALLOW_E_NOT_A_LOG = -23,      /* the file is something else */

    /* the operating system */
    QALLOW_E_IO = -30,             /* a read, write or sync failed */
    QALLOW_E_NO_SPACE = -31,       /* disk or quota full */
    QALLOW_E_PERMISSION = -32,     /* not allowed */
    QALLOW_E_NO_INPUT = -33,       /* a file or directory that was named does not exist */
    QALLOW_E_CANNOT_CREATE = -34,  /* an output exists already or cannot be made */
    QALLOW_E_BUSY = -35,           /* another process, or another transaction, has it */
    QALLOW_E_UNAVAILABLE = -36,    /* a daemon or kernel facility is not there */

    /* limits */
    QALLOW_E_NO_MEMORY = -40,      /* allocation failed */
    QALLOW_E_LIMIT = -41,          /* a size or count beyond what is supported or was allowed */

    /* control */
    QALLOW_E_INTERRUPTED = -50,    /* a signal asked to stop */
    QALLOW_E_DIFFERS = -51,        /* a comparison found a difference */

    /* devices */
    QALLOW_E_NO_DEVICE = -70,      /* no GPU, no driver, or a build without CUDA */
    QALLOW_E_DEVICE_MEMORY = -71,  /* the GPU has too little free */
    QALLOW_E_DEVICE = -72,         /* work on the GPU failed, or the GPU was lost */

    /* our own mistakes */
    QALLOW_E_INTERNAL = -60,       /* an invariant does not hold; the store is poisoned */
};

/* A short text for a result ("damaged data"). Never NULL; static storage. Thread-safety: safe. */
QALLOW_API const char *qallow_strerror(int result);

/* One line about the newest failure in the calling thread, without newline; "" if there was none.
 * Valid until the next Qallow call of this thread. Thread-safety: safe. */
QALLOW_API const char *qallow_error_detail(void);

/* The version of the library as "MAJOR.MINOR.PATCH". Static storage. Thread-safety: safe. */
QALLOW_API const char *qallow_version(void);

#ifdef __cplusplus
}
#endif
#endif
