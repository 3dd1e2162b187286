/* SPDX-License-Identifier: Apache-2.0 */
/* The `qallow-accelerator` executable: `qallow accelerator` alone, with the same table of options.
 */
#include <stdio.h>
#include <string.h>

#include "interface/commands.h"
#include "qallow/error.h"

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        printf("qallow-accelerator %s\n", qallow_version());
        return fflush(stdout) ? 74 : 0;
    }
    struct qi_command command = qi_command_accelerator;
    command.name = "qallow-accelerator";
    return qi_main(&command, argc, argv);
}
