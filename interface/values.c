/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers, sizes, durations and times as text. Quantities with a unit are one grammar, digits
 * [. digits] unit, over two tables of units; fractions are computed in 128-bit integers, so that
 * what is read is exact and overflow is seen.
 */
#include "interface/values.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define SECOND INT64_C(1000000000)

__extension__ typedef __int128 wide;
__extension__ typedef unsigned __int128 unsigned_wide;

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit size_units[] = {
    {"", 1},
    {"B", 1},
    {"K", UINT64_C(1) << 10},
    {"KiB", UINT64_C(1) << 10},
    {"M", UINT64_C(1) << 20},
    {"MiB", UINT64_C(1) << 20},
    {"G", UINT64_C(1) << 30},
    {"GiB", UINT64_C(1) << 30},
    {"T", UINT64_C(1) << 40},
    {"TiB", UINT64_C(1) << 40},
    {"P", UINT64_C(1) << 50},
    {"PiB", UINT64_C(1) << 50},
    {NULL, 0},
};
static const struct unit duration_units[] = {
    {"ns", 1},
    {"us", 1000},
    {"ms", 1000000},
    {"s", SECOND},
    {"m", 60 * SECOND},
    {"min", 60 * SECOND},
    {"h", 3600 * SECOND},
    {"d", 86400 * SECOND},
    {"w", 7 * 86400 * SECOND},
    {NULL, 0},
};

/* Reads decimal digits at *text. 0 if there are none or the value overflows. */
static int get_digits(const char **text, uint64_t *value)
{
    const char *at = *text;
    uint64_t v = 0;

    while (isdigit((unsigned char)*at)) {
        if (__builtin_mul_overflow(v, (uint64_t)10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*at - '0'), &v))
            return 0;
        at++;
    }
    if (at == *text)
        return 0;
    *text = at;
    *value = v;
    return 1;
}

const char *qi_parse_number(const char *text, uint64_t *value)
{
    uint64_t v;

    if (!get_digits(&text, &v) || *text)
        return "a number";
    *value = v;
    return NULL;
}

/* digits [. digits] unit. 1 if text is that and the amount is at most `limit`. */
static int parse_amount(const char *text, const struct unit *units, uint64_t limit,
                        uint64_t *amount)
{
    uint64_t whole, fraction = 0, scale = 1;

    if (!get_digits(&text, &whole))
        return 0;
    if (*text == '.') {
        const char *start = ++text;
        if (!get_digits(&text, &fraction) || text - start > 18)
            return 0;
        for (const char *p = start; p < text; p++)
            scale *= 10;
    }
    while (units->name && strcasecmp(units->name, text) != 0)
        units++;
    if (!units->name)
        return 0;
    unsigned_wide total = (unsigned_wide)whole * units->factor +
                          (unsigned_wide)fraction * units->factor / scale;
    if (total > limit)
        return 0;
    *amount = (uint64_t)total;
    return 1;
}

const char *qi_parse_size(const char *text, uint64_t *bytes)
{
    return parse_amount(text, size_units, UINT64_MAX, bytes) ? NULL : "a size like 512, 10M or 1G";
}

const char *qi_parse_duration(const char *text, int64_t *ns)
{
    uint64_t amount;

    if (strcmp(text, "0") == 0)
        amount = 0;
    else if (!parse_amount(text, duration_units, INT64_MAX, &amount))
        return "a duration like 500ms, 10s, 2h or 7d";
    *ns = (int64_t)amount;
    return NULL;
}

/* Exactly `count` digits, then `end`. */
static int get_field(const char **text, int count, char end, int *value)
{
    int v = 0;

    for (int i = 0; i < count; i++) {
        if (!isdigit((unsigned char)(*text)[i]))
            return 0;
        v = v * 10 + ((*text)[i] - '0');
    }
    if (end && (*text)[count] != end)
        return 0;
    *text += count + (end != 0);
    *value = v;
    return 1;
}

static int leap(int year) { return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0; }

static int days_in_month(int year, int month)
{
    static const unsigned char days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month == 2 && leap(year) ? 29 : days[month - 1];
}

/* Days since 1970-01-01 of a day of the Gregorian calendar; years count from March so that the
 * leap day comes last. */
static int64_t days_of(int year, int month, int day)
{
    int64_t y = year - (month <= 2);
    int64_t m = (month + 9) % 12;

    return y * 365 + y / 4 - y / 100 + y / 400 + (m * 306 + 5) / 10 + (day - 1) - 719468;
}

/* ".digits", up to nanoseconds. 1 if it is well formed. */
static int get_fraction(const char **text, int64_t *ns)
{
    int64_t scale = SECOND;

    *ns = 0;
    if (**text != '.')
        return 1;
    const char *start = ++*text;
    while (isdigit((unsigned char)**text)) {
        scale /= 10;
        *ns += (*(*text)++ - '0') * scale;
    }
    return *text - start >= 1 && *text - start <= 9;
}

/* "Z" or "+hh:mm", to the end of the text. */
static int get_zone(const char *text, int64_t *seconds)
{
    int hours, minutes, sign = *text == '-' ? -1 : 1;

    *seconds = 0;
    if (strcasecmp(text, "z") == 0)
        return 1;
    if (*text != '+' && *text != '-')
        return 0;
    text++;
    if (!get_field(&text, 2, ':', &hours) || !get_field(&text, 2, 0, &minutes) || *text ||
        hours > 23 || minutes > 59)
        return 0;
    *seconds = sign * (hours * 3600 + minutes * 60);
    return 1;
}

const char *qi_parse_time(const char *text, int64_t *ns)
{
    static const char expected[] = "an RFC 3339 time like 2026-11-21T10:17:00Z or "
                                   "2026-11-21T11:17:00.5+01:00";
    int year, month, day, hour, minute, second;
    int64_t fraction, zone, result;

    if (!get_field(&text, 4, '-', &year) || !get_field(&text, 2, '-', &month) ||
        !get_field(&text, 2, 0, &day) || !*text || !strchr("Tt ", *text))
        return expected;
    text++;
    if (!get_field(&text, 2, ':', &hour) || !get_field(&text, 2, ':', &minute) ||
        !get_field(&text, 2, 0, &second) || !get_fraction(&text, &fraction) ||
        !get_zone(text, &zone))
        return expected;
    if (year < 1 || month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) ||
        hour > 23 || minute > 59 || second > 60) /* 60: a leap second */
        return expected;
    int64_t seconds = days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - zone;
    wide exact = (wide)seconds * SECOND + fraction;
    result = (int64_t)exact;
    if (exact != result)
        return "a time between 1677-09-21T00:12:44Z and 2262-04-11T23:47:16Z";
    *ns = result;
    return NULL;
}

const char *qi_format_time(int64_t ns, char text[QI_TEXT_MAX])
{
    int64_t seconds = ns / SECOND, fraction = ns % SECOND;
    if (fraction < 0) {
        fraction += SECOND;
        seconds--;
    }
    int64_t days = seconds / 86400, rest = seconds % 86400;
    if (rest < 0) {
        rest += 86400;
        days--;
    }
    /* a guess that is never too late, then a step or two */
    int year = 1970 + (int)(days < 0 ? days / 365 - 1 : days / 366), month = 12;
    while (days_of(year + 1, 1, 1) <= days)
        year++;
    while (days_of(year, month, 1) > days)
        month--;
    int day = (int)(days - days_of(year, month, 1)) + 1;
    snprintf(text, QI_TEXT_MAX, "%04d-%02d-%02dT%02d:%02d:%02d.%09dZ", year, month, day,
             (int)(rest / 3600), (int)(rest / 60 % 60), (int)(rest % 60), (int)fraction);
    return text;
}

const char *qi_format_size(uint64_t bytes, char text[QI_TEXT_MAX])
{
    static const char prefixes[] = "KMGTPE";
    double amount = (double)bytes / 1024;
    size_t prefix = 0;

    if (bytes < 1024) {
        snprintf(text, QI_TEXT_MAX, "%u B", (unsigned)bytes);
        return text;
    }
    for (; amount >= 1023.95 && prefixes[prefix + 1]; prefix++)
        amount /= 1024;
    snprintf(text, QI_TEXT_MAX, "%.1f %ciB", amount, prefixes[prefix]);
    return text;
}

const char *qi_format_duration(int64_t ns, char text[QI_TEXT_MAX])
{
    static const struct {
        int64_t above; /* used from here on */
        int64_t big, small;
        const char *big_name, *small_name;
    } forms[] = {
        {86400 * SECOND, 86400 * SECOND, 3600 * SECOND, "d", "h"},
        {3600 * SECOND, 3600 * SECOND, 60 * SECOND, "h", "min"},
        {60 * SECOND, 60 * SECOND, SECOND, "min", "s"},
    };
    const char *sign = ns < 0 ? "-" : "";
    uint64_t amount = ns < 0 ? -(uint64_t)ns : (uint64_t)ns;

    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (amount >= (uint64_t)forms[i].above) {
            snprintf(text, QI_TEXT_MAX, "%s%u %s %u %s", sign,
                     (unsigned)(amount / (uint64_t)forms[i].big), forms[i].big_name,
                     (unsigned)(amount % (uint64_t)forms[i].big / (uint64_t)forms[i].small),
                     forms[i].small_name);
            return text;
        }
    if (amount >= (uint64_t)SECOND)
        snprintf(text, QI_TEXT_MAX, "%s%.2f s", sign, (double)amount / 1e9);
    else if (amount >= 1000000)
        snprintf(text, QI_TEXT_MAX, "%s%u ms", sign, (unsigned)(amount / 1000000));
    else if (amount >= 1000)
        snprintf(text, QI_TEXT_MAX, "%s%u us", sign, (unsigned)(amount / 1000));
    else
        snprintf(text, QI_TEXT_MAX, "%s%u ns", sign, (unsigned)amount);
    return text;
}

const char *qi_format_hex(const void *bytes, size_t length, char *text, size_t text_size)
{
    const unsigned char *at = bytes;

    if (text_size)
        text[0] = 0;
    for (size_t i = 0; i < length && 2 * i + 2 < text_size; i++)
        snprintf(text + 2 * i, 3, "%02x", at[i]);
    return text;
}

const char *qi_parse_compress(const char *text, void *field)
{
    uint64_t level;
    if (strcmp(text, "off") != 0 && (qi_parse_number(text, &level) || level == 0 || level > 19))
        return "a level from 1 to 19, or off";
    *(int *)field = strcmp(text, "off") == 0 ? 0 : (int)level;
    return NULL;
}

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef";
    const char *at = c ? strchr(digits, c | 0x20) : NULL;
    return at ? (int)(at - digits) : -1;
}

const char *qi_parse_uuid(const char *text, void *field)
{
    struct qi_uuid uuid;
    for (size_t i = 0; i < sizeof uuid.bytes; i++) {
        text += *text == '-' && i > 0;
        int high = hex_digit(text[0]);
        int low = high < 0 ? -1 : hex_digit(text[1]);
        if (low < 0)
            return "32 hexadecimal digits, with or without hyphens between bytes";
        uuid.bytes[i] = (uint8_t)(high << 4 | low);
        text += 2;
    }
    if (*text)
        return "32 hexadecimal digits, with or without hyphens between bytes";
    *(struct qi_uuid *)field = uuid;
    return NULL;
}
