/* SPDX-License-Identifier: Apache-2.0 */
/* The `qallow-accelerator` executable: `qallow accelerator` alone, with the same table of options.
 */
#include "interface/commands.h"

int main(int argc, char **argv)
{
    struct qi_command command = qi_command_accelerator;
    command.name = "qallow-accelerator";
    return qi_main(&command, argc, argv);
}
