/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `qallow-accelerator` executable: `qallow accelerator` alone, with the same table of options
 * and, as every executable has it, --version. What it says of itself has its own name.
 */
#include <stdio.h>
#include <string.h>

#include "interface/cmd_accelerator.h"
#include "interface/commands.h"
#include "interface/describe.h"
#include "interface/report.h"
#include "runtime/error.h"

enum { OPTIONS_MAX = 96, EXAMPLES_MAX = 16, LINE_MAX_BYTES = 120 };
static const char joined[] = "qallow accelerator", own_name[] = "qallow-accelerator";

struct standalone {
    struct accelerator accelerator; /* first: what the command itself is given */
    int version, man;
};

static const struct qi_option own_options[] = {
    {.name = "version", .letter = 'V', .kind = QI_FLAG, QI_FIELD(struct standalone, version),
     .help = "print the version and exit"},
    {.name = "man", .kind = QI_FLAG, QI_FIELD(struct standalone, man), .hidden = true,
     .help = "print the manual page, in roff"},
    {.name = NULL},
};

static int run(struct qi_context *context, const void *values)
{
    const struct standalone *s = values;
    size_t length = strlen(context->path);

    if (s->man) {
        qi_print_manual(stdout, context->path, context->command);
        return 0;
    }
    if (!s->version)
        return qi_command_accelerator.run(context, &s->accelerator);
    snprintf(context->path + length, sizeof context->path - length, " %s", qi_command_version.name);
    return qi_command_version.run(context, NULL);
}

/* `table` gets the options of the command and ours. */
static void join_options(struct qi_option table[OPTIONS_MAX])
{
    size_t n = 0;

    for (const struct qi_option *o = qi_command_accelerator.options; o->name; o++)
        table[n++] = *o;
    qr_assert(n + sizeof own_options / sizeof *own_options <= OPTIONS_MAX);
    memcpy(table + n, own_options, sizeof own_options);
}

/* `table` gets the examples as they are typed for this executable. */
static void rename_examples(struct qi_example table[EXAMPLES_MAX],
                            char lines[EXAMPLES_MAX][LINE_MAX_BYTES])
{
    size_t n = 0;

    for (const struct qi_example *e = qi_command_accelerator.examples; e->line; e++, n++) {
        qr_assert(n + 1 < EXAMPLES_MAX && strlen(e->line) < LINE_MAX_BYTES);
        qr_assert(strncmp(e->line, joined, strlen(joined)) == 0);
        snprintf(lines[n], LINE_MAX_BYTES, "%s%s", own_name, e->line + strlen(joined));
        table[n] = (struct qi_example){lines[n], e->what};
    }
    table[n] = (struct qi_example){0};
}

int main(int argc, char **argv)
{
    static struct qi_option options[OPTIONS_MAX];
    static struct qi_example examples[EXAMPLES_MAX];
    static char lines[EXAMPLES_MAX][LINE_MAX_BYTES];
    struct qi_command command = qi_command_accelerator;

    join_options(options);
    rename_examples(examples, lines);
    command.name = own_name;
    command.options = options;
    command.examples = examples;
    command.values_size = sizeof(struct standalone);
    command.run = run;
    return qi_main(&command, argc, argv);
}
