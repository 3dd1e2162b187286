/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results in words, the per-thread detail line, names made safe to print, and failed assertions.
 *
 * Everything here must work when memory is short and from any thread, so the buffers are
 * thread-local and of fixed size: what does not fit is cut, and the cut is visible.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/error.h"

enum {
    DETAIL_SIZE = 2048,
    QUOTE_BUFFERS = 8,
    QUOTE_HEAD = 320, /* printed bytes kept of the beginning and end of a name that is too long */
    QUOTE_TAIL = 160,
    QUOTE_SIZE = QUOTE_HEAD + QUOTE_TAIL + 64, /* 64: the note between them */
    TOKEN_MAX = 16, /* printed bytes of one quoted character: 4 x "\xHH" */
};

static _Thread_local char detail_line[DETAIL_SIZE];

const char *qallow_strerror(int result)
{
    switch ((enum qallow_result)result) {
    case QALLOW_OK:
        return "success";
    case QALLOW_E_ARGUMENT:
        return "invalid argument";
    case QALLOW_E_STATE:
        return "not possible in this state";
    case QALLOW_E_UNSUPPORTED_LOCATION:
        return "unsupported page location";
    case QALLOW_E_PAGE_NOT_FOUND:
        return "page not found";
    case QALLOW_E_PAGE_EXISTS:
        return "page exists already";
    case QALLOW_E_INVALID_DELTA:
        return "invalid delta";
    case QALLOW_E_EPOCH_NOT_FOUND:
        return "epoch not found";
    case QALLOW_E_CYCLE:
        return "dependency cycle";
    case QALLOW_E_FUNCTION:
        return "a page's function failed";
    case QALLOW_E_DAMAGED:
        return "damaged data";
    case QALLOW_E_SERIALIZATION:
        return "malformed data";
    case QALLOW_E_VERSION:
        return "written by a newer version";
    case QALLOW_E_NOT_A_LOG:
        return "not a Qallow log";
    case QALLOW_E_IO:
        return "input/output error";
    case QALLOW_E_NO_SPACE:
        return "no space left";
    case QALLOW_E_PERMISSION:
        return "permission denied";
    case QALLOW_E_NO_INPUT:
        return "no such input";
    case QALLOW_E_CANNOT_CREATE:
        return "cannot create";
    case QALLOW_E_BUSY:
        return "in use by somebody else";
    case QALLOW_E_UNAVAILABLE:
        return "not available";
    case QALLOW_E_NO_MEMORY:
        return "out of memory";
    case QALLOW_E_LIMIT:
        return "limit exceeded";
    case QALLOW_E_INTERRUPTED:
        return "interrupted";
    case QALLOW_E_DIFFERS:
        return "differs";
    case QALLOW_E_NO_DEVICE:
        return "no GPU";
    case QALLOW_E_DEVICE_MEMORY:
        return "out of GPU memory";
    case QALLOW_E_DEVICE:
        return "GPU failed";
    case QALLOW_E_INTERNAL:
        return "internal error";
    }
    return "unknown result";
}

const char *qallow_error_detail(void) { return detail_line; }

const char *qallow_version(void) { return QALLOW_VERSION; }

/* Formats into a line of its own first: the arguments may point into the present detail. A byte
 * that could move a cursor or start a new line becomes '?', should a caller have forgotten to
 * quote. `err` is 0 for none. */
static void set_detail(int err, const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0)));
static void set_detail(int err, const char *format, va_list arguments)
{
    char line[DETAIL_SIZE];
    int length = vsnprintf(line, sizeof line, format, arguments);
    if (length < 0)
        length = 0;
    if ((size_t)length >= sizeof line) {
        memcpy(line + sizeof line - sizeof "...", "...", sizeof "...");
        length = (int)sizeof line - 1;
    }
    if (err) {
        char text[128];
        snprintf(line + length, sizeof line - (size_t)length, ": %s",
                 strerror_r(err, text, sizeof text));
    }
    for (char *p = line; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    }
    memcpy(detail_line, line, sizeof line);
}

int qr_fail(int result, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    set_detail(0, format, arguments);
    va_end(arguments);
    return result;
}

static int result_of_errno(int err)
{
    switch (err) {
    case ENOSPC:
    case EDQUOT:
        return QALLOW_E_NO_SPACE;
    case EACCES:
    case EPERM:
    case EROFS:
        return QALLOW_E_PERMISSION;
    case ENOENT:
    case ENOTDIR:
        return QALLOW_E_NO_INPUT;
    case ENOMEM:
        return QALLOW_E_NO_MEMORY;
    default:
        return QALLOW_E_IO;
    }
}

int qr_fail_errno(int err, const char *format, ...)
{
    va_list arguments;
    if (err < 0)
        err = -err;
    va_start(arguments, format);
    set_detail(err, format, arguments);
    va_end(arguments);
    return result_of_errno(err);
}

/* --- quoting --- */

/* Length of the well-formed UTF-8 sequence at p (RFC 3629: shortest form, no surrogates), 0 if
 * there is none; *code is its code point. */
static size_t utf8_sequence(const uint8_t *p, size_t left, uint32_t *code)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (n == 0 || p[0] > 0xf4 || n > left)
        return 0;
    uint32_t c = n == 1 ? p[0] : p[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    if (c < smallest[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *code = c;
    return n;
}

/* What a terminal or a reader could take for something else than a character of a name: C0 and C1
 * controls, our own escape character, line separators, and marks that reorder the text around
 * them. */
static int is_deceptive(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == '\\' || code == 0x61c ||
           (code >= 0x200e && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e) ||
           (code >= 0x2066 && code <= 0x2069) || code == 0xfeff;
}

/* Writes the printable form of the character at p to out; returns its printed length and sets
 * *used to the bytes it came from. */
static size_t quote_token(const uint8_t *p, size_t left, char out[TOKEN_MAX + 1], size_t *used)
{
    uint32_t code = 0;
    size_t n = utf8_sequence(p, left, &code);
    *used = n ? n : 1;
    if (n && !is_deceptive(code)) {
        memcpy(out, p, n);
        return n;
    }
    for (size_t i = 0; i < *used; i++)
        snprintf(out + 4 * i, 5, "\\x%02x", p[i]);
    return 4 * *used;
}

const char *qr_quote(const void *name, unsigned long length)
{
    static _Thread_local char buffers[QUOTE_BUFFERS][QUOTE_SIZE];
    static _Thread_local unsigned next;
    char *buffer = buffers[next++ % QUOTE_BUFFERS], token[TOKEN_MAX + 1];
    const uint8_t *bytes = name;
    size_t total = 0, used, out = 0, printed = 0, omitted = 0;

    for (size_t at = 0; at < length; at += used)
        total += quote_token(bytes + at, length - at, token, &used);
    for (size_t at = 0; at < length; at += used) {
        size_t n = quote_token(bytes + at, length - at, token, &used);
        int fits = total <= QUOTE_HEAD + QUOTE_TAIL;
        printed += n;
        if (fits || printed <= QUOTE_HEAD || total - (printed - n) <= QUOTE_TAIL) {
            if (omitted) {
                out += (size_t)snprintf(buffer + out, 64, "[... %zu bytes ...]", omitted);
                omitted = 0;
            }
            memcpy(buffer + out, token, n);
            out += n;
        } else {
            omitted += used;
        }
    }
    buffer[out] = 0;
    return buffer;
}

const char *qr_quotez(const char *name) { return qr_quote(name, strlen(name)); }

/* --- assertions --- */

static _Atomic(qr_assert_handler) assert_handler;

void qr_set_assert_handler(qr_assert_handler handler) { atomic_store(&assert_handler, handler); }

void qr_assert_failed(const char *cond, const char *file, int line)
{
    qr_assert_handler handler = atomic_load(&assert_handler);
    if (handler)
        handler(cond, file, line);
    abort();
}
