/* SPDX-License-Identifier: Apache-2.0 */
/* The way from argv to an exit status, for every executable. */
#include <stdio.h>

#include "interface/commands.h"
#include "interface/describe.h"
#include "interface/report.h"

static int run(struct qi_context *context, const struct qi_command *root, int argc,
               const char *const *argv)
{
    int rc = qi_parse(context, root, argc, argv);

    if (rc == QALLOW_E_ARGUMENT)
        return qi_usage_error(context);
    if (rc == 0 && context->help)
        qi_print_help(stdout, context->path, context->command);
    else if (rc == 0)
        rc = context->command->run(context, context->values);
    /* What was printed must have arrived for the command to have succeeded; but a failure that the
     * command itself met comes first. */
    return rc < 0 ? qi_report(context, rc) : qi_stdout_finish(context, rc);
}

int qi_main(const struct qi_command *root, int argc, char **argv)
{
    struct qi_context context = {0};

    qi_process_init();
    int status = run(&context, root, argc, (const char *const *)argv);
    qi_context_finish(&context);
    return status;
}
