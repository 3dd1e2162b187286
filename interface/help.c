/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --help, and what help, manual and completion ask of a table: which options are shown, with which
 * words. Text is broken at 80 columns whatever the terminal, so that it can be tested and pasted.
 */
#include <stdarg.h>
#include <string.h>

#include "interface/describe.h"
#include "interface/report.h"

enum { WIDTH = 80, HELP_COLUMN = 28 };

const char *qi_argument_word(const struct qi_option *option)
{
    static const char *const words[] = {
        [QI_TEXT] = "TEXT", [QI_NUMBER] = "N",       [QI_SIZE] = "SIZE", [QI_DURATION] = "DURATION",
        [QI_TIME] = "TIME", [QI_CHOICE] = "CHOICE", [QI_LIST] = "TEXT", [QI_CUSTOM] = "VALUE",
    };

    if (option->kind == QI_FLAG)
        return NULL;
    return option->argument ? option->argument : option->positional ? option->name
                                                                    : words[option->kind];
}

const struct qi_option *qi_next_visible(const struct qi_command *command, size_t *i)
{
    const struct qi_option *option;

    while ((option = qi_option_at(command, (*i)++)))
        if (!option->hidden)
            return option;
    return NULL;
}

enum qi_source qi_source_of(const struct qi_option *option)
{
    const char *word = qi_argument_word(option);

    if (option->choices)
        return QI_FROM_CHOICES;
    if (!word)
        return QI_FROM_NOWHERE;
    if (strstr(word, "FILE") || strstr(word, "LOG") || strstr(word, "SOURCE"))
        return QI_FROM_FILES;
    return strstr(word, "DIR") ? QI_FROM_DIRECTORIES : QI_FROM_NOWHERE;
}

/* Appends one remark: the first opens a parenthesis, later ones follow a semicolon. */
static void __attribute__((format(printf, 4, 5)))
remark(char *text, size_t size, int *open, const char *format, ...)
{
    size_t n = strlen(text);
    va_list args;

    n += (size_t)snprintf(text + n, size - n, "%s", *open ? "; " : " (");
    *open = 1;
    va_start(args, format);
    if (n < size)
        vsnprintf(text + n, size - n, format, args);
    va_end(args);
}

void qi_option_help(const struct qi_option *option, char *text, size_t size)
{
    char choices[256] = "";
    int open = 0;

    snprintf(text, size, "%s", option->help);
    for (size_t i = 0, n = 0; option->choices && option->choices[i] && n < sizeof choices; i++)
        n += (size_t)snprintf(choices + n, sizeof choices - n, "%s%s", i ? "|" : "",
                              option->choices[i]);
    if (option->kind == QI_CHOICE)
        remark(text, size, &open, "%s", choices);
    if (option->implied)
        remark(text, size, &open, "if left out: %s", option->implied);
    if (option->fallback && option->kind != QI_FLAG)
        remark(text, size, &open, "default: %s", option->fallback);
    if (option->kind == QI_LIST && !option->positional)
        remark(text, size, &open, "may be repeated");
    size_t n = strlen(text);
    if (open)
        snprintf(text + n, size - n, ")");
}

void qi_print_synopsis(FILE *out, const struct qi_command *command)
{
    const struct qi_option *option;

    fputs(" [options]", out);
    for (size_t i = 0; (option = qi_next_visible(command, &i));)
        if (!option->positional && option->required)
            fprintf(out, " --%s %s", option->name, qi_argument_word(option));
    for (size_t i = 0; (option = qi_next_visible(command, &i));)
        if (option->positional)
            fprintf(out, " %s%s%s%s", option->required ? "" : "[", option->name,
                    option->kind == QI_LIST ? "..." : "", option->required ? "" : "]");
    if (command->actions)
        fputs(" COMMAND ...", out);
}

/* Writes words with a break before column WIDTH. The cursor is at `column`; new lines begin with
 * `indent` blanks. Two newlines in the text divide paragraphs. */
static void wrap(FILE *out, const char *text, size_t indent, size_t column)
{
    int fresh = 1;

    while (*text) {
        size_t length = strcspn(text, " \n");
        if (!fresh && column + 1 + length > WIDTH - 1) {
            fprintf(out, "\n%*s", (int)indent, "");
            column = indent;
            fresh = 1;
        }
        column += (size_t)fprintf(out, "%s%.*s", fresh ? "" : " ", (int)length, text);
        fresh = 0;
        text += length;
        if (text[0] == '\n' && text[1] == '\n') {
            fprintf(out, "\n\n%*s", (int)indent, "");
            column = indent;
            fresh = 1;
        }
        text += strspn(text, " \n");
    }
    fputc('\n', out);
}

/* "  -o, --output DIR          where to put it" */
static void print_row(FILE *out, const char *left, const char *help)
{
    size_t length = strlen(left);

    fputs(left, out);
    if (length + 2 > HELP_COLUMN)
        fprintf(out, "\n%*s", HELP_COLUMN, "");
    else
        fprintf(out, "%*s", (int)(HELP_COLUMN - length), "");
    wrap(out, help, HELP_COLUMN, HELP_COLUMN);
}

static void print_option(FILE *out, const struct qi_option *option)
{
    char left[128], help[512], letter[8] = "    ";
    const char *word = qi_argument_word(option);

    if (option->letter)
        snprintf(letter, sizeof letter, "-%c, ", option->letter);
    if (option->positional)
        snprintf(left, sizeof left, "  %s", option->name);
    else
        snprintf(left, sizeof left, "  %s--%s%s%s%s%s", letter, option->negatable ? "[no-]" : "",
                 option->name, !word ? "" : option->implied ? "[=" : " ", word ? word : "",
                 option->implied ? "]" : "");
    qi_option_help(option, help, sizeof help);
    print_row(out, left, help);
}

/* One section of options: the positional ones or the others. */
static void print_options(FILE *out, const struct qi_command *command, bool positional)
{
    const struct qi_option *option;
    const char *title = positional ? "\nArguments:\n" : "\nOptions:\n";

    for (size_t i = 0; (option = qi_next_visible(command, &i));)
        if (option->positional == positional) {
            fputs(title, out);
            print_option(out, option);
            title = "";
        }
}

static void print_exits(FILE *out, const struct qi_command *command)
{
    const struct qi_exit *exit = command->exits;

    if (!exit)
        return;
    fputs("\nExit status:\n", out);
    for (size_t i = 0; i == 0 || exit[i].status; i++) {
        fprintf(out, "  %-4d", exit[i].status);
        wrap(out, exit[i].meaning ? exit[i].meaning : qi_status_meaning(exit[i].status), 6, 6);
    }
}

void qi_print_help(FILE *out, const char *path, const struct qi_command *command)
{
    fprintf(out, "%s - %s\n\nUsage: %s", path, command->summary, path);
    qi_print_synopsis(out, command);
    fputc('\n', out);
    if (command->description) {
        fputs("\n", out);
        wrap(out, command->description, 0, 0);
    }
    if (command->actions)
        fputs("\nCommands:\n", out);
    for (const struct qi_command *const *a = command->actions; a && *a; a++)
        if (!(*a)->hidden) {
            char left[64];
            snprintf(left, sizeof left, "  %s", (*a)->name);
            print_row(out, left, (*a)->summary);
        }
    print_options(out, command, true);
    print_options(out, command, false);
    for (const struct qi_example *e = command->examples; e && e->line; e++)
        fprintf(out, "%s  %s\n      %s\n", e == command->examples ? "\nExamples:\n" : "", e->line,
                e->what);
    print_exits(out, command);
}

/* --- for programs --- */

static void option_json(cJSON *array, const struct qi_option *option)
{
    cJSON *item = cJSON_CreateObject();
    const char *word = qi_argument_word(option);

    cJSON_AddItemToArray(array, item);
    cJSON_AddStringToObject(item, "name", option->name);
    if (option->letter)
        cJSON_AddStringToObject(item, "letter", (char[]){option->letter, 0});
    if (word)
        cJSON_AddStringToObject(item, "argument", word);
    cJSON_AddStringToObject(item, "help", option->help);
    if (option->fallback)
        cJSON_AddStringToObject(item, "default", option->fallback);
    for (size_t i = 0; option->choices && option->choices[i]; i++) {
        cJSON *choices = i ? cJSON_GetObjectItem(item, "choices")
                           : cJSON_AddArrayToObject(item, "choices");
        cJSON_AddItemToArray(choices, cJSON_CreateString(option->choices[i]));
    }
    if (option->group)
        cJSON_AddStringToObject(item, "group", option->group);
    cJSON_AddBoolToObject(item, "required", option->required);
    cJSON_AddBoolToObject(item, "repeatable", option->kind == QI_LIST);
}

void qi_describe_json(cJSON *object, const char *path, const struct qi_command *command)
{
    const struct qi_option *option;
    char action_path[96];

    cJSON_AddStringToObject(object, "command", path);
    cJSON_AddStringToObject(object, "summary", command->summary);
    cJSON *arguments = cJSON_AddArrayToObject(object, "arguments");
    cJSON *options = cJSON_AddArrayToObject(object, "options");
    for (size_t i = 0; (option = qi_next_visible(command, &i));)
        option_json(option->positional ? arguments : options, option);
    cJSON *actions = cJSON_AddArrayToObject(object, "commands");
    for (const struct qi_command *const *a = command->actions; a && *a; a++) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddItemToArray(actions, item);
        snprintf(action_path, sizeof action_path, "%s %s", path, (*a)->name);
        qi_describe_json(item, action_path, *a);
    }
}
