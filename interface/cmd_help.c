/* SPDX-License-Identifier: Apache-2.0 */
/* `qallow help [COMMAND...]`: the help, the manual page, or the option table of a command. */
#include <string.h>

#include "interface/commands.h"
#include "interface/describe.h"
#include "interface/report.h"

struct help {
    int man;
    struct qi_list names;
};

static const struct qi_option options[] = {
    {.name = "COMMAND", .positional = true, .kind = QI_LIST, QI_FIELD(struct help, names),
     .help = "the command to explain, with its action if it has one"},
    {.name = "man", .kind = QI_FLAG, QI_FIELD(struct help, man),
     .help = "print its manual page, in roff"},
    {.name = NULL},
};

static int run(struct qi_context *context, const void *values)
{
    const struct help *help = values;
    const struct qi_command *command = context->root;
    char path[sizeof context->path];

    snprintf(path, sizeof path, "%s", command->name);
    for (size_t i = 0; i < help->names.count; i++) {
        size_t n = strlen(path);
        command = qi_find_action(command, help->names.items[i], context->error,
                                 sizeof context->error);
        if (!command)
            return qi_usage_error(context);
        snprintf(path + n, sizeof path - n, " %s", command->name);
    }
    if (context->json && help->man)
        return qi_usage(context, "--man or --json, not both");
    if (context->json) {
        cJSON *object = qi_json_begin(context);
        qi_describe_json(object, path, command);
        return qi_json_end(object);
    }
    if (help->man)
        qi_print_manual(stdout, path, command);
    else
        qi_print_help(stdout, path, command);
    return 0;
}

const struct qi_command qi_command_help = {
    .name = "help",
    .summary = "explain a command",
    .description = "Prints what `qallow COMMAND --help` prints, its manual page (--man), or its "
                   "table of options for a program to read (--json).",
    .options = options,
    .values_size = sizeof(struct help),
    .run = run,
    .examples = (const struct qi_example[]){
        {"qallow help version", "the options of a command"},
        {"qallow help --man version | man -l -", "its manual page, without installing it"},
        {0}},
    .exits = (const struct qi_exit[]){{0, NULL}, {64, NULL}, {74, NULL}, {0}},
};
