/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manual pages, in roff with the man macros, from the tables. `qallow` and each of its commands
 * have a page; the actions of a command stand in its page.
 */
#include <ctype.h>
#include <string.h>

#include "interface/describe.h"
#include "interface/report.h"

/* Text as it is: no escape, no control line, minus signs that can be copied. A paragraph break is
 * an empty line in `text`. */
static void put_text(FILE *out, const char *text)
{
    for (int line_start = 1; *text; text++) {
        if (text[0] == '\n' && text[1] == '\n') {
            fputs("\n.PP\n", out);
            text++;
            line_start = 1;
            continue;
        }
        if (line_start && (*text == '.' || *text == '\''))
            fputs("\\&", out);
        line_start = *text == '\n';
        if (*text == '-')
            fputs("\\-", out);
        else if (*text == '\\')
            fputs("\\e", out);
        else
            fputc(*text, out);
    }
}

static void put_line(FILE *out, const char *text)
{
    put_text(out, text);
    fputc('\n', out);
}

/* "\fBqallow replay\fR [options] LOG" */
static void put_usage(FILE *out, const char *path, const struct qi_command *command)
{
    char synopsis[512] = "";
    FILE *memory = fmemopen(synopsis, sizeof synopsis, "w");

    if (memory) {
        qi_print_synopsis(memory, command);
        fclose(memory);
    }
    fputs("\\fB", out);
    put_text(out, path);
    fputs("\\fR", out);
    put_line(out, synopsis);
}

static void put_option(FILE *out, const struct qi_option *option)
{
    const char *word = qi_argument_word(option);
    char help[512];

    fputs(".TP\n", out);
    if (option->positional) {
        fprintf(out, "\\fI%s\\fR%s\n", option->name, option->kind == QI_LIST ? " ..." : "");
    } else {
        if (option->letter)
            fprintf(out, "\\fB\\-%c\\fR, ", option->letter);
        fputs(option->negatable ? "\\fB\\-\\-\\fR[\\fBno\\-\\fR]\\fB" : "\\fB\\-\\-", out);
        put_text(out, option->name);
        fputs("\\fR", out);
        if (word) {
            fputs(option->implied ? "[=\\fI" : " \\fI", out);
            put_text(out, word);
            fputs(option->implied ? "\\fR]" : "\\fR", out);
        }
        fputc('\n', out);
    }
    qi_option_help(option, help, sizeof help);
    help[0] = (char)toupper((unsigned char)help[0]);
    put_text(out, help);
    fputs(".\n", out);
}

static void put_options(FILE *out, const struct qi_command *command, bool positional)
{
    const struct qi_option *option;

    for (size_t i = 0; (option = qi_next_visible(command, &i));)
        if (option->positional == positional)
            put_option(out, option);
}

/* `lead` stands before the first one: nothing after a heading. */
static void put_examples(FILE *out, const struct qi_command *command, const char *lead)
{
    for (const struct qi_example *e = command->examples; e && e->line; e++) {
        char what[256];
        snprintf(what, sizeof what, "%s", e->what);
        what[0] = (char)toupper((unsigned char)what[0]);
        fputs(e == command->examples ? lead : ".PP\n", out);
        put_text(out, what);
        fputs(":\n.PP\n.EX\n    ", out);
        put_line(out, e->line);
        fputs(".EE\n", out);
    }
}

static void put_exits(FILE *out, const struct qi_exit *exit)
{
    for (size_t i = 0; i == 0 || exit[i].status; i++) {
        fprintf(out, ".TP\n.B %d\n", exit[i].status);
        put_line(out, exit[i].meaning ? exit[i].meaning : qi_status_meaning(exit[i].status));
    }
}

/* Every status that any command may end with. */
static void put_all_exits(FILE *out)
{
    for (int status = 0; status < 256; status++)
        if (qi_status_meaning(status)) {
            fprintf(out, ".TP\n.B %d\n", status);
            put_line(out, qi_status_meaning(status));
        }
}

/* The commands of `qallow`, each with its own page. */
static void put_command_list(FILE *out, const struct qi_command *command)
{
    fputs(".SH COMMANDS\n", out);
    for (const struct qi_command *const *a = command->actions; *a; a++)
        if (!(*a)->hidden) {
            fprintf(out, ".TP\n\\fB%s\\fR\n", (*a)->name);
            put_text(out, (*a)->summary);
            fprintf(out, "; see\n.BR %s\\-%s (1)\n", command->name, (*a)->name);
        }
}

/* The actions of a command, whole. */
static void put_actions(FILE *out, const char *path, const struct qi_command *command)
{
    fputs(".SH COMMANDS\n", out);
    for (const struct qi_command *const *a = command->actions; *a; a++) {
        char action_path[96];
        if ((*a)->hidden)
            continue;
        snprintf(action_path, sizeof action_path, "%s %s", path, (*a)->name);
        fputs(".SS ", out);
        put_line(out, action_path);
        put_usage(out, action_path, *a);
        fputs(".PP\n", out);
        put_line(out, (*a)->description ? (*a)->description : (*a)->summary);
        const struct qi_option *option;
        for (size_t i = 0; (option = qi_next_visible(*a, &i));)
            if (option == qi_common_options)
                break;
            else
                put_option(out, option);
        put_examples(out, *a, ".PP\n");
    }
}

void qi_print_manual(FILE *out, const char *path, const struct qi_command *command)
{
    int is_root = strchr(path, ' ') == NULL;
    char title[96];

    snprintf(title, sizeof title, "%s", path);
    for (char *p = title; *p; p++)
        *p = *p == ' ' ? '-' : (char)toupper((unsigned char)*p);
    fputs(".\\\" SPDX-License-Identifier: Apache-2.0\n"
          ".\\\" Made from the option tables.\n.TH ",
          out);
    put_text(out, title);
    fprintf(out, " 1 \"\" \"qallow %s\" \"Qallow Manual\"\n", qallow_version());
    fputs(".nh\n.ad l\n.SH NAME\n", out); /* options are not to be broken or stretched */
    for (const char *p = path; *p; p++)
        fputs(*p == ' ' ? "\\-" : (char[]){*p, 0}, out);
    fputs(" \\- ", out);
    put_line(out, command->summary);
    fputs(".SH SYNOPSIS\n", out);
    put_usage(out, path, command);
    if (command->description) {
        fputs(".SH DESCRIPTION\n", out);
        put_line(out, command->description);
    }
    if (command->actions && is_root)
        put_command_list(out, command);
    else if (command->actions)
        put_actions(out, path, command);
    fputs(".SH OPTIONS\n", out);
    put_options(out, command, true);
    put_options(out, command, false);
    if (command->examples)
        fputs(".SH EXAMPLES\n", out);
    put_examples(out, command, "");
    fputs(".SH EXIT STATUS\n", out);
    if (command->exits)
        put_exits(out, command->exits);
    else
        put_all_exits(out);
    fputs(".SH ENVIRONMENT\n.TP\n.B NO_COLOR\nIf set and not empty, nothing is coloured.\n"
          ".TP\n.B TERM\nIf unset or \\(lqdumb\\(rq, no colour and no progress line.\n",
          out);
    fputs(is_root ? ".SH SEE ALSO\n.BR sysexits.h (3head)\n" : ".SH SEE ALSO\n.BR qallow (1)\n",
          out);
}
