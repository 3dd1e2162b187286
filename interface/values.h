/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers, sizes, durations and times as text, both ways. */
#ifndef QI_VALUES_H
#define QI_VALUES_H

#include <stddef.h>
#include <stdint.h>

/* Each parses the whole of `text` and returns NULL, or what was expected ("a size like 512, 10M or
 * 1G"), then *value is untouched. Overflow, signs, blanks and trailing bytes are refused. */
const char *qi_parse_number(const char *text, uint64_t *value);
const char *qi_parse_size(const char *text, uint64_t *bytes);      /* B K M G T P, KiB.., 1.5G */
const char *qi_parse_duration(const char *text, int64_t *ns);      /* ns us ms s m h d w, 1.5h */
const char *qi_parse_time(const char *text, int64_t *ns);          /* RFC 3339, up to 9 decimals,
                                                                      Z or +hh:mm; 1677 to 2262 */

/* Room for any of the texts below, with its NUL. */
enum { QI_TEXT_MAX = 64 };

/* "2026-11-21T10:17:00.123456789Z": always UTC, always nine decimals. Returns `text`. */
const char *qi_format_time(int64_t ns, char text[QI_TEXT_MAX]);
/* "0 B", "1023 B", "1.5 KiB", "12.0 GiB". */
const char *qi_format_size(uint64_t bytes, char text[QI_TEXT_MAX]);
/* "250 ms", "1.50 s", "2 h 5 min": for people. */
const char *qi_format_duration(int64_t ns, char text[QI_TEXT_MAX]);
/* 32 hex digits; bytes as they are stored. */
const char *qi_format_hex(const void *bytes, size_t length, char *text, size_t text_size);

/* For an option of kind QI_CUSTOM over an int: a zstd level from 1 to 19, or "off" as 0. */
const char *qi_parse_compress(const char *text, void *field);
enum { QI_COMPRESS_DEFAULT = 1 };
#define QI_COMPRESS_HELP "zstd level for what is written to the log, 1 to 19, or off"

/* For an option of kind QI_CUSTOM over a struct qi_uuid. */
struct qi_uuid {
    uint8_t bytes[16];
};
const char *qi_parse_uuid(const char *text, void *field);

#endif
