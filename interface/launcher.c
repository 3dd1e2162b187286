/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `qallow` executable: the table of commands. What a command is and how to add one stands in
 * interface/options.h.
 */
#include <stdio.h>

#include "interface/commands.h"
#include "interface/describe.h"
#include "interface/report.h"

static const struct qi_command *const commands[] = {
#ifndef QALLOW_NO_ACCELERATOR
    &qi_command_accelerator,
#endif
    &qi_command_replay,
    &qi_command_checkpoint,
    &qi_command_vm,
    &qi_command_stats,
    &qi_command_bench,
    &qi_command_doctor,
    &qi_command_help,
    &qi_command_version,
    &qi_command_completion,
    NULL,
};

struct root {
    int version;
};

static const struct qi_option root_options[] = {
    {.name = "version", .letter = 'V', .kind = QI_FLAG, QI_FIELD(struct root, version),
     .help = "print the version and exit"},
    {.name = NULL},
};

/* `qallow` without a command. */
static int run_root(struct qi_context *context, const void *values)
{
    const struct root *root = values;

    if (root->version) {
        snprintf(context->path, sizeof context->path, "%s %s", context->root->name,
                 qi_command_version.name);
        return qi_command_version.run(context, NULL);
    }
    qi_print_help(stderr, context->path, context->root);
    return QI_USAGE;
}

const struct qi_command qi_command_root = {
    .name = "qallow",
    .summary = "keep every state of a directory, and have any of them back",
    .description =
        "Qallow keeps mutable state as versioned pages. Every change is a delta in one append-only "
        "log; any epoch can be had back, byte for byte, and is verified.\n\n"
        "Results go to standard output, everything else to standard error.",
    .options = root_options,
    .actions = commands,
    .values_size = sizeof(struct root),
    .run = run_root,
    .examples = (const struct qi_example[]){{"qallow help", "list the commands"}, {0}},
};

int main(int argc, char **argv) { return qi_main(&qi_command_root, argc, argv); }
