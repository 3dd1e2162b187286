/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines for people on stderr. One write per line, so that lines of several threads and processes
 * do not mix; per call site one line a second, and what was left out is counted and said with the
 * site's next line. Bytes that could move a terminal's cursor never reach it.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "telemetry/telemetry.h"

enum { LINE_SIZE = 4096 };
static const uint64_t interval_ns = 1000000000;

static _Atomic int log_level = QT_QUIET; /* a library says nothing; the commands set it */

void qt_log_level_set(enum qt_level level)
{
    atomic_store_explicit(&log_level, (int)level, memory_order_relaxed);
}

/* 1 if the site may speak now; *suppressed is what it kept to itself since it last did. */
static int may_speak(struct qt_throttle *site, uint64_t *suppressed)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t now_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    uint64_t last_ns = __atomic_load_n(&site->last_ns, __ATOMIC_RELAXED);
    /* Of several threads that come at once, the one whose exchange succeeds speaks. One that came
     * late with its time finds a newer last_ns and does not speak either. */
    if ((last_ns != 0 && now_ns < last_ns + interval_ns) ||
        !__atomic_compare_exchange_n(&site->last_ns, &last_ns, now_ns, 0, __ATOMIC_RELAXED,
                                     __ATOMIC_RELAXED)) {
        __atomic_fetch_add(&site->suppressed, 1, __ATOMIC_RELAXED);
        return 0;
    }
    *suppressed = __atomic_exchange_n(&site->suppressed, 0, __ATOMIC_RELAXED);
    return 1;
}

void qt_log_at(struct qt_throttle *site, enum qt_level level, const char *format, ...)
{
    static const char prefix[] = "qallow: ", cut[] = "...";
    char line[LINE_SIZE], tail[64] = "\n";
    uint64_t suppressed;
    int saved_errno = errno;
    va_list arguments;

    if ((int)level > atomic_load_explicit(&log_level, memory_order_relaxed) ||
        !may_speak(site, &suppressed))
        return;
    if (suppressed)
        snprintf(tail, sizeof tail, " (suppressed %llu)\n", (unsigned long long)suppressed);

    size_t start = sizeof prefix - 1, room = sizeof line - start - sizeof tail;
    memcpy(line, prefix, sizeof prefix);
    va_start(arguments, format);
    int length = vsnprintf(line + start, room, format, arguments);
    va_end(arguments);
    if (length < 0)
        line[start] = 0;
    if (length >= (int)room)
        memcpy(line + start + room - sizeof cut, cut, sizeof cut);
    for (unsigned char *p = (unsigned char *)line; *p; p++) {
        if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0) /* C1 controls in UTF-8 */
            p[0] = p[1] = '?';
        if (*p < 0x20 || *p == 0x7f)
            *p = '?';
    }
    size_t end = strlen(line), tail_length = strlen(tail);
    memcpy(line + end, tail, tail_length);
    while (write(STDERR_FILENO, line, end + tail_length) < 0 && errno == EINTR) {
    }
    errno = saved_errno;
}
