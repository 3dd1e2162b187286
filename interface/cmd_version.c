/* SPDX-License-Identifier: Apache-2.0 */
/* `qallow version`: which qallow this is and what it was built with. */
#include <stdio.h>

#include "interface/commands.h"
#include "interface/report.h"

#ifdef __clang__
#define COMPILER __VERSION__
#else
#define COMPILER "gcc " __VERSION__
#endif

static int run(struct qi_context *context, const void *values)
{
    (void)values;
    if (!context->json) {
        printf("%s %s\n", context->root->name, qallow_version());
        return 0;
    }
    cJSON *object = qi_json_begin(context);
    cJSON_AddStringToObject(object, "qallow", qallow_version());
    cJSON_AddStringToObject(object, "compiler", COMPILER);
    cJSON_AddStringToObject(object, "cjson", cJSON_Version());
    return qi_json_end(object);
}

const struct qi_command qi_command_version = {
    .name = "version",
    .summary = "say which qallow this is",
    .description = "Prints the version on one line. With --json also what it was built with.",
    .run = run,
    .examples = (const struct qi_example[]){{"qallow version", "print the version"},
                                            {"qallow version --json", "the same for a program"},
                                            {0}},
    .exits = (const struct qi_exit[]){{0, NULL}, {64, NULL}, {74, NULL}, {0}},
};
