/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsing a command line by its tables. One pass over argv walks down the tree of commands: a word
 * names an action as long as the command has any and is a positional argument after that; options
 * may stand anywhere. What the tables demand together (required, groups) is checked at the end.
 */
#include "interface/options.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "interface/values.h"
#include "qallow/error.h"
#include "runtime/error.h"
#include "runtime/os.h"

const struct qi_option qi_common_options[] = {
    {.name = "help", .letter = 'h', .kind = QI_FLAG, QI_FIELD(struct qi_context, help),
     .help = "show this help and exit"},
    {.name = "json", .kind = QI_FLAG, QI_FIELD(struct qi_context, json),
     .help = "print the result as JSON (one object, or one a line)"},
    {.name = "quiet", .letter = 'q', .kind = QI_FLAG, QI_FIELD(struct qi_context, quiet),
     .help = "no notes, hints or progress on stderr; errors only"},
    {.name = NULL},
};

static size_t option_count(const struct qi_option *options)
{
    size_t n = 0;
    while (options && options[n].name)
        n++;
    return n;
}

const struct qi_option *qi_option_at(const struct qi_command *command, size_t i)
{
    size_t own = option_count(command->options);

    if (i < own)
        return &command->options[i];
    return i - own < option_count(qi_common_options) ? &qi_common_options[i - own] : NULL;
}

static int is_common(const struct qi_option *option)
{
    return option >= qi_common_options &&
           option < qi_common_options + option_count(qi_common_options);
}

/* Where an option is stored. */
static void *field_of(struct qi_context *context, const struct qi_option *option)
{
    char *base = is_common(option) ? (char *)context : context->values;
    return base + option->offset;
}

static int __attribute__((format(printf, 2, 3))) fail(struct qi_context *context,
                                                      const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(context->error, sizeof context->error, format, args);
    va_end(args);
    return QALLOW_E_ARGUMENT;
}

/* --- words that are nearly right --- */

size_t qi_distance(const char *a, const char *b)
{
    enum { MAX = 40 };
    size_t la = strlen(a), lb = strlen(b), d[MAX + 1][MAX + 1];

    if (la > MAX || lb > MAX)
        return la > lb ? la : lb;
    for (size_t i = 0; i <= la; i++)
        for (size_t j = 0; j <= lb; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            size_t best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best)
                best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best)
                best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    return d[la][lb];
}

/* The best guess so far of what was meant. */
struct guess {
    const char *name;
    size_t distance;
};

static void consider(struct guess *guess, const char *word, const char *name)
{
    size_t length = strlen(word), distance = qi_distance(word, name);

    if (length >= 2 && strncmp(word, name, length) == 0)
        distance = 1; /* the beginning of it */
    if (distance <= 1 + length / 4 && (!guess->name || distance < guess->distance))
        *guess = (struct guess){name, distance};
}

const struct qi_command *qi_find_action(const struct qi_command *command, const char *name,
                                        char *error, size_t error_size)
{
    struct guess guess = {NULL, 0};

    for (const struct qi_command *const *a = command->actions; a && *a; a++) {
        if (strcmp((*a)->name, name) == 0)
            return *a;
        if (!(*a)->hidden)
            consider(&guess, name, (*a)->name);
    }
    size_t n = (size_t)snprintf(error, error_size, "unknown command '%s'", qr_quotez(name));
    if (guess.name && n < error_size) {
        snprintf(error + n, error_size - n, ", did you mean %s?", guess.name);
        return NULL;
    }
    const char *before = ", expected one of ";
    for (const struct qi_command *const *a = command->actions; a && *a && n < error_size; a++)
        if (!(*a)->hidden) {
            n += (size_t)snprintf(error + n, error_size - n, "%s%s", before, (*a)->name);
            before = ", ";
        }
    return NULL;
}

/* --- values --- */

/* "a number from 1 to 64" */
static const char *expect_range(struct qi_context *context, uint64_t minimum, uint64_t maximum)
{
    const unsigned long long low = minimum, high = maximum;

    if (maximum == UINT64_MAX && minimum > 0)
        snprintf(context->error, sizeof context->error, "a number, %llu or more", low);
    else
        snprintf(context->error, sizeof context->error, "a number from %llu to %llu", low, high);
    return context->error;
}

static const char *set_number(struct qi_context *context, const struct qi_option *option,
                              const char *text, void *field)
{
    uint64_t value, maximum = option->maximum ? option->maximum : UINT64_MAX;

    if (option->size == sizeof(int) && maximum > INT_MAX)
        maximum = INT_MAX;
    if (qi_parse_number(text, &value) || value < option->minimum || value > maximum)
        return expect_range(context, option->minimum, maximum);
    if (option->size == sizeof(int)) {
        int narrow = (int)value;
        memcpy(field, &narrow, sizeof narrow);
    } else {
        memcpy(field, &value, sizeof value);
    }
    return NULL;
}

static const char *set_size(struct qi_context *context, const struct qi_option *option,
                            const char *text, void *field)
{
    uint64_t value, maximum = option->maximum ? option->maximum : UINT64_MAX;
    char low[QI_TEXT_MAX], high[QI_TEXT_MAX];
    const char *expected = qi_parse_size(text, &value);

    if (!expected && (value < option->minimum || value > maximum)) {
        snprintf(context->error, sizeof context->error, "a size from %s to %s",
                 qi_format_size(option->minimum, low), qi_format_size(maximum, high));
        return context->error;
    }
    if (!expected)
        memcpy(field, &value, sizeof value);
    return expected;
}

static const char *set_duration(struct qi_context *context, const struct qi_option *option,
                                const char *text, void *field)
{
    int64_t value, maximum = option->maximum ? (int64_t)option->maximum : INT64_MAX;
    char with_unit[64], low[QI_TEXT_MAX], high[QI_TEXT_MAX];
    size_t length = strlen(text);

    if (option->unit && length && strspn(text, "0123456789.") == length) {
        int n = snprintf(with_unit, sizeof with_unit, "%s%s", text, option->unit);
        if (n < (int)sizeof with_unit)
            text = with_unit;
    }
    const char *expected = qi_parse_duration(text, &value);
    if (!expected && (value < (int64_t)option->minimum || value > maximum)) {
        snprintf(context->error, sizeof context->error, "a duration from %s to %s",
                 qi_format_duration((int64_t)option->minimum, low),
                 qi_format_duration(maximum, high));
        return context->error;
    }
    if (!expected)
        memcpy(field, &value, sizeof value);
    return expected;
}

static const char *set_choice(struct qi_context *context, const struct qi_option *option,
                              const char *text, void *field)
{
    size_t n = 0;

    for (int i = 0; option->choices[i]; i++)
        if (strcmp(option->choices[i], text) == 0) {
            memcpy(field, &i, sizeof i);
            return NULL;
        }
    for (int i = 0; option->choices[i] && n < sizeof context->error; i++)
        n += (size_t)snprintf(context->error + n, sizeof context->error - n, "%s%s",
                              i == 0                   ? ""
                              : option->choices[i + 1] ? ", "
                                                       : " or ",
                              option->choices[i]);
    return context->error;
}

static int add_to_list(struct qi_list *list, const char *text)
{
    const char **items = qr_realloc(list->items, (list->count + 1) * sizeof *items);

    if (!items)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the arguments");
    items[list->count++] = text;
    list->items = items;
    return 0;
}

/* Stores `text` as the option's value. NULL, or what was expected. */
static const char *set_value(struct qi_context *context, const struct qi_option *option,
                             const char *text)
{
    void *field = field_of(context, option);

    switch (option->kind) {
    case QI_FLAG: {
        int value = strcmp(text, "1") == 0;
        memcpy(field, &value, sizeof value);
        return NULL;
    }
    case QI_TEXT:
        memcpy(field, &text, sizeof text);
        return NULL;
    case QI_NUMBER:
        return set_number(context, option, text, field);
    case QI_SIZE:
        return set_size(context, option, text, field);
    case QI_DURATION:
        return set_duration(context, option, text, field);
    case QI_TIME:
        return qi_parse_time(text, field);
    case QI_CHOICE:
        return set_choice(context, option, text, field);
    case QI_CUSTOM:
        return option->parse(text, field);
    case QI_LIST: /* grows instead: take_value */
        break;
    }
    qr_assert(!"a kind of option that has no single value");
    return NULL;
}

/* A variable of a script that was never set, most often: it names nothing. */
static int empty_value(struct qi_context *context, const struct qi_option *option)
{
    if (option->positional)
        return fail(context, "expected %s, not '': %s", option->name, option->help);
    return fail(context, "--%s needs a value, not '': --%s %s", option->name, option->name,
                option->argument ? option->argument : "VALUE");
}

static int take_value(struct qi_context *context, const struct qi_option *option, const char *text)
{
    char expected[sizeof context->error];
    const char *wrong = NULL;

    if (!*text && (option->kind == QI_TEXT || option->kind == QI_LIST))
        return empty_value(context, option);
    if (option->kind == QI_LIST) {
        int rc = add_to_list(field_of(context, option), text);
        if (rc < 0)
            return rc;
    } else {
        wrong = set_value(context, option, text);
    }
    if (!wrong) {
        if (!is_common(option) && context->given[option - context->command->options] < UCHAR_MAX)
            context->given[option - context->command->options]++;
        return 0;
    }
    snprintf(expected, sizeof expected, "%s", wrong);
    return fail(context, "%s%s takes %s, not '%s'", option->positional ? "" : "--", option->name,
                expected, qr_quotez(text));
}

/* --- going down the tree --- */

static size_t kind_size(const struct qi_option *option)
{
    switch (option->kind) {
    case QI_FLAG:
    case QI_CHOICE:
        return sizeof(int);
    case QI_TEXT:
        return sizeof(char *);
    case QI_NUMBER:
        return option->size == sizeof(int) ? sizeof(int) : sizeof(uint64_t);
    case QI_SIZE:
    case QI_DURATION:
    case QI_TIME:
        return sizeof(uint64_t);
    case QI_LIST:
        return sizeof(struct qi_list);
    case QI_CUSTOM:
        return option->size;
    }
    return 0;
}

/* Our own mistakes in a table. */
static void check_table(const struct qi_command *command)
{
    const struct qi_option *a, *b, *positional = NULL;

    qr_assert(command->name && command->summary && (command->actions || command->run));
    for (size_t i = 0; (a = qi_option_at(command, i)); i++) {
        qr_assert(a->help || a->hidden);
        qr_assert(a->size == kind_size(a));
        qr_assert(is_common(a) || a->offset + a->size <= command->values_size);
        qr_assert(!a->fallback || a->kind != QI_LIST);
        qr_assert(a->kind != QI_CHOICE || a->choices);
        qr_assert(a->kind != QI_CUSTOM || a->parse);
        qr_assert(!a->modes || command->modes);
        qr_assert(!a->implied || a->kind == QI_CHOICE || a->kind == QI_CUSTOM);
        for (size_t j = 0; j < i; j++) {
            b = qi_option_at(command, j);
            qr_assert(strcmp(a->name, b->name) != 0);
            qr_assert(!a->letter || a->letter != b->letter);
        }
        if (!a->positional)
            continue;
        qr_assert(!positional || positional->kind != QI_LIST);
        qr_assert(!positional || positional->required || !a->required);
        positional = a;
    }
}

/* Makes `command` the one whose options are parsed from here on. */
static int enter(struct qi_context *context, const struct qi_command *command)
{
    size_t count = option_count(command->options), length = strlen(context->path);

    check_table(command);
    context->command = command;
    snprintf(context->path + length, sizeof context->path - length, "%s%s", length ? " " : "",
             command->name);
    context->values = qr_calloc(1, command->values_size + 1);
    context->given = qr_calloc(1, count + 1);
    if (!context->values || !context->given)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the options");
    for (size_t i = 0; i < count; i++)
        if (command->options[i].fallback) {
            const char *wrong = set_value(context, &command->options[i],
                                          command->options[i].fallback);
            qr_assert(!wrong);
        }
    return 0;
}

/* Frees what `enter` and the parsing after it allocated. */
static void leave(struct qi_context *context)
{
    for (size_t i = 0; context->values && i < option_count(context->command->options); i++)
        if (context->command->options[i].kind == QI_LIST)
            qr_free(((struct qi_list *)field_of(context, &context->command->options[i]))->items);
    qr_free(context->values);
    qr_free(context->given);
    context->values = context->given = NULL;
}

void qi_context_finish(struct qi_context *context) { leave(context); }

static int descend(struct qi_context *context, const char *name)
{
    const struct qi_command *action;

    for (size_t i = 0; i < option_count(context->command->options); i++)
        if (context->given[i])
            return fail(context, "--%s goes with no command, not with '%s'",
                        context->command->options[i].name, qr_quotez(name));
    action = qi_find_action(context->command, name, context->error, sizeof context->error);
    if (!action)
        return QALLOW_E_ARGUMENT;
    leave(context);
    return enter(context, action);
}

/* --- arguments --- */

static int take_positional(struct qi_context *context, const char *text)
{
    const struct qi_option *options = context->command->options;

    for (size_t i = 0; i < option_count(options); i++)
        if (options[i].positional && (!context->given[i] || options[i].kind == QI_LIST))
            return take_value(context, &options[i], text);
    return fail(context, "expected nothing more, not '%s'", qr_quotez(text));
}

static const struct qi_option *find_long(const struct qi_command *command, const char *name,
                                         size_t length)
{
    const struct qi_option *option;

    for (size_t i = 0; (option = qi_option_at(command, i)); i++)
        if (!option->positional && strlen(option->name) == length &&
            memcmp(option->name, name, length) == 0)
            return option;
    return NULL;
}

static const struct qi_option *find_letter(const struct qi_command *command, char letter)
{
    const struct qi_option *option;

    for (size_t i = 0; (option = qi_option_at(command, i)); i++)
        if (!option->positional && option->letter == letter)
            return option;
    return NULL;
}

static int unknown_option(struct qi_context *context, const char *name, size_t length)
{
    struct guess guess = {NULL, 0};
    const struct qi_option *option;
    char word[64];

    snprintf(word, sizeof word, "%.*s", (int)(length < sizeof word ? length : sizeof word), name);
    for (size_t i = 0; (option = qi_option_at(context->command, i)); i++)
        if (!option->positional && !option->hidden)
            consider(&guess, word, option->name);
    if (guess.name)
        return fail(context, "unknown option --%s, did you mean --%s?", qr_quote(name, length),
                    guess.name);
    return fail(context, "unknown option --%s, see %s --help", qr_quote(name, length),
                context->path);
}

/* The value of an option whose text does not hold one: the next argument, or what is implied. */
static int take_next(struct qi_context *context, const struct qi_option *option, const char *next,
                     int *used)
{
    int dashed = next && next[0] == '-' && next[1];

    *used = 0;
    if (option->implied) {
        if (next && !dashed && !set_value(context, option, next))
            *used = 1;
        return take_value(context, option, *used ? next : option->implied);
    }
    if (!next)
        return fail(context, "--%s needs a value: --%s %s", option->name, option->name,
                    option->argument ? option->argument : "VALUE");
    if (dashed)
        return fail(context, "--%s needs a value, but '%s' follows (if that is it: --%s=%s)",
                    option->name, qr_quotez(next), option->name, qr_quotez(next));
    *used = 1;
    return take_value(context, option, next);
}

/* --name, --name=value, --name value, --no-name */
static int take_long(struct qi_context *context, const char *text, const char *next, int *used)
{
    const char *equals = strchr(text, '=');
    size_t length = equals ? (size_t)(equals - text) : strlen(text);
    const struct qi_option *option = find_long(context->command, text, length);

    if (!option && length > 3 && memcmp(text, "no-", 3) == 0) {
        option = find_long(context->command, text + 3, length - 3);
        if (option && option->negatable && !equals)
            return take_value(context, option, "0");
        option = NULL;
    }
    if (!option)
        return unknown_option(context, text, length);
    if (option->kind == QI_FLAG)
        return equals ? fail(context, "--%s takes no value", option->name)
                      : take_value(context, option, "1");
    if (equals)
        return take_value(context, option, equals + 1);
    return take_next(context, option, next, used);
}

/* -x, -xyz for flags, -x value, -xvalue */
static int take_letters(struct qi_context *context, const char *text, const char *next, int *used)
{
    int rc = 0;

    for (; *text && rc == 0; text++) {
        const struct qi_option *option = find_letter(context->command, *text);
        if (!option)
            return fail(context, "unknown option -%s, see %s --help", qr_quote(text, 1),
                        context->path);
        if (option->kind == QI_FLAG)
            rc = take_value(context, option, "1");
        else if (text[1])
            return take_value(context, option, text + 1);
        else
            return take_next(context, option, next, used);
    }
    return rc;
}

/* --- what the tables demand together --- */

static int check_required(struct qi_context *context)
{
    const struct qi_option *options = context->command->options;

    for (size_t i = 0; i < option_count(options); i++) {
        const struct qi_option *o = &options[i];
        if (!o->required || context->given[i])
            continue;
        if (o->positional)
            return fail(context, "expected %s: %s", o->name, o->help);
        return fail(context, "expected --%s %s: %s", o->name, o->argument ? o->argument : "",
                    o->help);
    }
    return 0;
}

static int check_groups(struct qi_context *context)
{
    const struct qi_option *options = context->command->options, *first = NULL;
    size_t count = option_count(options);

    for (size_t i = 0; i < count; i++)
        for (size_t j = i + 1; j < count; j++) {
            first = &options[i];
            if (context->given[i] && context->given[j] && first->group && options[j].group &&
                strcmp(first->group, options[j].group) == 0)
                return fail(context, "expected --%s or --%s, not both", first->name,
                            options[j].name);
        }
    return 0;
}

static int check_whole(struct qi_context *context)
{
    if (context->command->actions && !context->command->run) {
        qi_find_action(context->command, "", context->error, sizeof context->error);
        char *list = strstr(context->error, "expected");
        if (list)
            memmove(context->error, list, strlen(list) + 1);
        return QALLOW_E_ARGUMENT;
    }
    int rc = check_groups(context);
    return rc ? rc : check_required(context);
}

int qi_parse(struct qi_context *context, const struct qi_command *root, int argc,
             const char *const *argv)
{
    int words_only = 0, used = 0;

    context->root = root;
    int rc = enter(context, root);
    for (int i = 1; i < argc && rc == 0; i += 1 + used) {
        const char *text = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
        used = 0;
        if (!words_only && strcmp(text, "--") == 0)
            words_only = 1;
        else if (!words_only && strncmp(text, "--", 2) == 0)
            rc = take_long(context, text + 2, next, &used);
        else if (!words_only && text[0] == '-' && text[1])
            rc = take_letters(context, text + 1, next, &used);
        else if (context->command->actions)
            rc = descend(context, text);
        else
            rc = take_positional(context, text);
    }
    if (rc == 0 && !context->help)
        rc = check_whole(context);
    if (rc == 0)
        context->error[0] = 0; /* of values that were tried and not taken */
    return rc;
}

int qi_given(const struct qi_context *context, const char *name)
{
    const struct qi_option *options = context->command->options;

    for (size_t i = 0; i < option_count(options); i++)
        if (strcmp(options[i].name, name) == 0)
            return context->given[i] != 0;
    qr_assert(!"qi_given: the command has no such option");
    return 0;
}

/* --- wrong usage --- */

int qi_usage_error(const struct qi_context *context)
{
    const struct qi_example *example = context->command->examples;

    fprintf(stderr, "%s: %s\n", context->path, context->error);
    if (example && example->line)
        fprintf(stderr, "example: %s\n", example->line);
    else
        fprintf(stderr, "example: %s --help\n", context->path);
    return 64;
}

/* "A, B or C": the modes that an option goes with. */
static void list_modes(const struct qi_command *command, unsigned modes, char *text, size_t size)
{
    size_t n = 0;

    text[0] = 0;
    for (size_t i = 0; command->modes[i] && n < size; i++) {
        unsigned later = modes >> i >> 1;
        if (modes & 1u << i)
            n += (size_t)snprintf(text + n, size - n, "%s%s", command->modes[i],
                                  !later                ? ""
                                  : later & (later - 1) ? ", "
                                                        : " or ");
    }
}

int qi_check_mode(struct qi_context *context, unsigned mode)
{
    const struct qi_command *command = context->command;
    char good[256], present[64];

    for (size_t i = 0; i < option_count(command->options); i++) {
        const struct qi_option *option = &command->options[i];
        if (!context->given[i] || !option->modes || option->modes & mode)
            continue;
        list_modes(command, option->modes, good, sizeof good);
        list_modes(command, mode, present, sizeof present);
        fail(context, "--%s goes with %s, not with %s", option->name, good, present);
        return qi_usage_error(context);
    }
    return 0;
}

int qi_usage(struct qi_context *context, const char *expected, ...)
{
    va_list args;
    size_t n = (size_t)snprintf(context->error, sizeof context->error, "expected ");

    va_start(args, expected);
    vsnprintf(context->error + n, sizeof context->error - n, expected, args);
    va_end(args);
    return qi_usage_error(context);
}
