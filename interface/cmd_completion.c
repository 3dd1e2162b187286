/* SPDX-License-Identifier: Apache-2.0 */
/* `qallow completion SHELL`: prints the completion script of a shell. */
#include "interface/commands.h"
#include "interface/describe.h"
#include "interface/report.h"
#include "runtime/error.h"

#include <stdlib.h>

struct completion {
    int shell; /* enum qi_shell */
};

static const char *const shells[] = {"bash", "zsh", "fish", NULL};

static const struct qi_option options[] = {
    {.name = "SHELL", .positional = true, .required = true, .kind = QI_CHOICE, .choices = shells,
     QI_FIELD(struct completion, shell), .help = "the shell to complete in"},
    {.name = NULL},
};

static int run(struct qi_context *context, const void *values)
{
    const struct completion *completion = values;
    char *script = NULL;
    size_t length = 0;

    if (!context->json) {
        qi_print_completion(stdout, context->root, (enum qi_shell)completion->shell);
        return 0;
    }
    FILE *memory = open_memstream(&script, &length);
    if (!memory)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the script");
    qi_print_completion(memory, context->root, (enum qi_shell)completion->shell);
    int lost = fclose(memory) != 0;
    int rc = lost ? qr_fail(QALLOW_E_NO_MEMORY, "no memory for the script") : 0;
    if (rc == 0) {
        cJSON *object = qi_json_begin(context);
        cJSON_AddStringToObject(object, "shell", shells[completion->shell]);
        cJSON_AddStringToObject(object, "script", script);
        rc = qi_json_end(object);
    }
    free(script);
    return rc;
}

const struct qi_command qi_command_completion = {
    .name = "completion",
    .summary = "print the completion script of a shell",
    .description = "Prints a script that completes commands, options and their values. An "
                   "installed qallow brings the scripts with it; this is for one that is not "
                   "installed, or for other places.",
    .options = options,
    .values_size = sizeof(struct completion),
    .run = run,
    .examples = (const struct qi_example[]){
        {"qallow completion bash", "print it; in ~/.bashrc: source <(qallow completion bash)"},
        {"qallow completion fish > ~/.config/fish/completions/qallow.fish", "install it for fish"},
        {0}},
    .exits = (const struct qi_exit[]){{0, NULL}, {64, NULL}, {74, NULL}, {0}},
};
