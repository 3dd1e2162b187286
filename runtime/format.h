/* SPDX-License-Identifier: Apache-2.0 */
/* The constants of docs/formats/tlog.md. */
#ifndef QR_FORMAT_H
#define QR_FORMAT_H

#include <stdint.h>

enum {
    QR_FORMAT_VERSION = 2,      /* the newest that is read */
    QR_FORMAT_PLAIN = 1,        /* of a log without CONTENT frames */
    QR_SLOT_SIZE = 4096,      /* one header slot */
    QR_FIRST_FRAME = 8192,
    QR_FRAME_HEADER = 40,
    QR_FRAME_PAD = 7,         /* behind a body, at most */
    QR_BODY_MAX = 1 << 20,    /* stored and decompressed */
    QR_FRAME_MAGIC = 0x5146,
};
#define QR_LOG_MAGIC UINT64_C(0x4C54574F4C4C4151) /* "QALLOWTL" */

enum qr_frame_type {
    QR_FRAME_DATA = 1,
    QR_FRAME_COMMIT = 2,
    QR_FRAME_KEYFRAME = 3,
    QR_FRAME_LABEL = 4,
    QR_FRAME_EVENT = 5,
    QR_FRAME_CLOSE = 6,
    QR_FRAME_RELOCATION = 7,
    QR_FRAME_CONTENT = 8, /* since version 2 */
};
enum { QR_FRAME_ZSTD = 1 }; /* flags */

/* An event: u8 type, u64 time, u32 length, then so many bytes. */
enum { QR_EVENT_TIME = 1, QR_EVENT_LENGTH = 9, QR_EVENT_HEADER = 13 };

enum { QR_DELTA_FIRST = 1, QR_DELTA_LAST = 2, QR_DELTA_BASE = 4 };

#define QR_EPOCH_MAX (UINT64_C(1) << 62) /* epochs are below */

/* The bytes a frame takes in the file. */
static inline uint64_t qr_frame_span(uint64_t body_length)
{
    return (QR_FRAME_HEADER + body_length + QR_FRAME_PAD) & ~UINT64_C(7);
}

#endif
