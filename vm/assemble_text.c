/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The assembler's eyes: blanks, words, numbers, and the message that points at what is wrong. Text
 * is any bytes; nothing is read beyond the end of the line.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "runtime/error.h"
#include "vm/assemble_internal.h"

int qv_wrong(struct qv_parser *p, struct qv_span span, const char *format, ...)
{
    struct qv_source_error *e = p->error;
    va_list arguments;
    const char *from = p->line_start;

    va_start(arguments, format);
    vsnprintf(e->message, sizeof e->message, format, arguments);
    va_end(arguments);
    e->line = p->line;
    e->column = (size_t)(span.at - p->line_start) + 1;
    e->length = span.length ? span.length : 1;
    if (e->column > 100) /* a long line: what stands around the place */
        from = span.at - 60;
    e->caret = (size_t)(span.at - from);
    size_t length = 0;
    for (const char *c = from; c < p->text_end && *c != '\n' && length < sizeof e->text - 1; c++)
        e->text[length++] = *c >= ' ' && *c < 0x7f ? *c : ' ';
    e->text[length] = '\0';
    if (e->length > length - e->caret)
        e->length = length > e->caret ? length - e->caret : 1;
    return QALLOW_E_ARGUMENT;
}

void qv_skip_blanks(struct qv_parser *p)
{
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\r'))
        p->at++;
}

int qv_at_end(struct qv_parser *p)
{
    qv_skip_blanks(p);
    return p->at == p->end || *p->at == ';' || *p->at == '#';
}

int qv_accept(struct qv_parser *p, char c)
{
    if (qv_at_end(p) || *p->at != c)
        return 0;
    p->at++;
    return 1;
}

static int is_digit(char c) { return c >= '0' && c <= '9'; }
static int is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_';
}

struct qv_span qv_word_here(struct qv_parser *p, int with_points)
{
    qv_skip_blanks(p);
    struct qv_span span = {p->at, 0};
    while (p->at < p->end && (is_word(*p->at) || (with_points && *p->at == '.')))
        p->at++;
    span.length = (size_t)(p->at - span.at);
    return span;
}

struct qv_span qv_next_token(struct qv_parser *p)
{
    const char *at = p->at;
    struct qv_span span = qv_word_here(p, 1);
    p->at = at;
    if (span.length == 0)
        span.length = 1;
    return span;
}

int qv_span_is(struct qv_span span, const char *text)
{
    return span.length == strlen(text) && memcmp(span.at, text, span.length) == 0;
}

int qv_parse_name(struct qv_parser *p, const char *what, char name[QV_MAX_NAME + 1])
{
    struct qv_span span = qv_word_here(p, 0);

    if (span.length == 0 || is_digit(*span.at)) {
        p->at = span.at;
        return qv_wrong(p, qv_next_token(p), "expected %s", what);
    }
    if (span.length > QV_MAX_NAME)
        return qv_wrong(p, span, "a name of %zu bytes; the longest has %d", span.length,
                        QV_MAX_NAME);
    memcpy(name, span.at, span.length);
    name[span.length] = '\0';
    return 0;
}

int qv_parse_type(struct qv_parser *p, unsigned *type)
{
    struct qv_span span = qv_word_here(p, 0);

    for (*type = 0; *type < QB_TYPES; ++*type)
        if (qv_span_is(span, qv_type_names[*type]))
            return 0;
    return qv_wrong(p, span, "expected a type: u8, i8, u16, i16, u32, i32, u64, i64, f32 or f64");
}

/* --- numbers --- */

/* Digits and what else a number can consist of, copied to be ended by a NUL. */
static struct qv_span number_text(struct qv_parser *p, char text[80])
{
    struct qv_span span = {p->at, 0};
    const char *c = p->at;

    while (c < p->end &&
           (is_word(*c) || *c == '.' ||
            ((*c == '-' || *c == '+') && c > p->at && (c[-1] == 'e' || c[-1] == 'E') &&
             !(p->at[0] == '0' && p->at + 1 < p->end && p->at[1] == 'x'))))
        c++;
    span.length = (size_t)(c - p->at);
    size_t length = span.length < 79 ? span.length : 79;
    memcpy(text, span.at, length);
    text[length] = '\0';
    p->at = c;
    return span;
}

static int read_integer(const char *text, uint64_t *value)
{
    unsigned base = 10;

    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'b')) {
        base = text[1] == 'x' ? 16 : 2;
        text += 2;
    }
    *value = 0;
    if (*text == '\0')
        return 0;
    for (; *text != '\0'; text++) {
        unsigned digit = is_digit(*text)                ? (unsigned)(*text - '0')
                         : *text >= 'a' && *text <= 'f' ? (unsigned)(*text - 'a' + 10)
                         : *text >= 'A' && *text <= 'F' ? (unsigned)(*text - 'A' + 10)
                         : *text == '_'                 ? 99
                                                        : 100;
        if (digit == 99) /* divides groups of digits */
            continue;
        if (digit >= base || *value > (UINT64_MAX - digit) / base)
            return 0;
        *value = *value * base + digit;
    }
    return 1;
}

static int parse_constant(struct qv_parser *p, struct qv_number *number)
{
    struct qv_span span = qv_word_here(p, 0);

    for (size_t i = 0; i < p->constant_count; i++)
        if (qv_span_is(span, p->constants[i].name)) {
            *number = p->constants[i].value;
            return 0;
        }
    return qv_wrong(p, span, "expected a number, or the name of a .const");
}

static int parse_digits(struct qv_parser *p, struct qv_span all, struct qv_number *number)
{
    char text[80];
    struct qv_span span = number_text(p, text);
    int is_hex = text[0] == '0' && text[1] == 'x';
    double value;

    number->is_hex = is_hex;
    all.length = (size_t)(p->at - all.at);
    if (span.length < 79 && !is_hex && strpbrk(text, ".e")) {
        if (!qv_read_float(text, &value))
            return qv_wrong(p, all, "this is not a number");
        value = number->is_negative ? -value : value;
        memcpy(&number->bits, &value, sizeof value);
        number->is_float = 1;
        return 0;
    }
    if (span.length >= 79 || !read_integer(text, &number->bits) ||
        (number->is_negative && number->bits > (uint64_t)1 << 63))
        return qv_wrong(p, all, "this is not a number of 64 bits");
    number->bits = number->is_negative ? 0 - number->bits : number->bits;
    return 0;
}

int qv_parse_number(struct qv_parser *p, struct qv_number *number)
{
    *number = (struct qv_number){.bits = 0};
    if (qv_at_end(p))
        return qv_wrong(p, qv_next_token(p), "expected a number");
    struct qv_span all = {p->at, 1};
    if (*p->at == '\'') {
        if (p->end - p->at < 3 || p->at[2] != '\'')
            return qv_wrong(p, all, "expected one character between quotes, like 'a'");
        number->bits = (uint8_t)p->at[1];
        p->at += 3;
        return 0;
    }
    number->is_negative = qv_accept(p, '-');
    if (p->at < p->end && is_digit(*p->at))
        return parse_digits(p, all, number);
    if (number->is_negative)
        return qv_wrong(p, all, "expected digits behind the -");
    return parse_constant(p, number);
}

int qv_parse_integer(struct qv_parser *p, const char *what, int64_t least, int64_t greatest,
                     int64_t *value)
{
    struct qv_number number = {.bits = 0};
    struct qv_span span = (qv_skip_blanks(p), (struct qv_span){p->at, 1});
    int rc = qv_parse_number(p, &number);

    if (rc < 0)
        return rc;
    span.length = (size_t)(p->at - span.at);
    *value = (int64_t)number.bits;
    /* an unsigned number of 64 bits beyond the signed ones is below 0 here */
    if (number.is_float || *value < least || *value > greatest ||
        (*value < 0 && !number.is_negative))
        return qv_wrong(p, span, "expected %s: an integer from %lld to %lld", what,
                        (long long)least, (long long)greatest);
    return 0;
}

int qv_parse_size(struct qv_parser *p, const char *what, uint64_t greatest, uint64_t *value)
{
    char text[80];

    qv_skip_blanks(p);
    const char *from = p->at;
    struct qv_span span = number_text(p, text);
    const char *units = "KMGT", *unit;
    unsigned shift = 0;
    size_t length = strlen(text);
    if (length > 1 && (unit = strchr(units, text[length - 1])) != NULL) {
        shift = 10 * (unsigned)(unit - units + 1);
        text[length - 1] = '\0';
    }
    if (!is_digit(text[0])) { /* a constant */
        int64_t number = 0;
        p->at = from;
        int rc = qv_parse_integer(p, what, 0, (int64_t)greatest, &number);
        *value = (uint64_t)number;
        return rc;
    }
    if (span.length >= 79 || !read_integer(text, value) || *value > greatest >> shift)
        return qv_wrong(p, span, "expected %s: at most %llu, K, M, G, T may follow", what,
                        (unsigned long long)greatest);
    *value <<= shift;
    return 0;
}
