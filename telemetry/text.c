/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text that grows while an encoder adds to it. A failed allocation is remembered, so that encoders
 * need not look at every addition and their callers look once.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "telemetry/encoder.h"

void qt_text_add(struct qt_text *text, const char *format, ...)
{
    va_list arguments;
    for (;;) {
        size_t room = text->capacity - text->length;
        if (text->failed)
            return;
        va_start(arguments, format);
        int length = vsnprintf(room ? text->bytes + text->length : NULL, room, format, arguments);
        va_end(arguments);
        if (length < 0) {
            text->failed = 1;
            return;
        }
        if ((size_t)length < room) {
            text->length += (size_t)length;
            return;
        }
        size_t capacity = text->capacity * 2 + (size_t)length + 1;
        char *bytes = realloc(text->bytes, capacity);
        text->failed = !bytes;
        text->bytes = bytes ? bytes : text->bytes;
        text->capacity = bytes ? capacity : text->capacity;
    }
}

void qt_text_finish(struct qt_text *text)
{
    free(text->bytes);
    memset(text, 0, sizeof *text);
}

void qt_text_add_value(struct qt_text *text, const char *unit, uint64_t value)
{
    unsigned long long v = value, second = 1000000000;
    if (strcmp(unit, "seconds") == 0 || strcmp(unit, "ratio") == 0)
        qt_text_add(text, "%llu.%09llu", v / second, v % second);
    else
        qt_text_add(text, "%llu", v);
}
