/* SPDX-License-Identifier: Apache-2.0 */
/* The commands; each lives in interface/cmd_<name>.c. interface/options.h says how to add one. */
#ifndef QI_COMMANDS_H
#define QI_COMMANDS_H

#include "interface/options.h"

extern const struct qi_command qi_command_root; /* `qallow` itself: its actions are the commands */

extern const struct qi_command qi_command_accelerator;
extern const struct qi_command qi_command_replay;
extern const struct qi_command qi_command_checkpoint;
extern const struct qi_command qi_command_vm;
extern const struct qi_command qi_command_stats;
extern const struct qi_command qi_command_bench;
extern const struct qi_command qi_command_doctor;
extern const struct qi_command qi_command_help;
extern const struct qi_command qi_command_version;
extern const struct qi_command qi_command_completion;

/* Parses, runs, reports: what main() returns. */
int qi_main(const struct qi_command *root, int argc, char **argv);

#endif
