/* SPDX-License-Identifier: Apache-2.0 */
/* The actions of `qallow checkpoint`. */
#ifndef QI_CMD_CHECKPOINT_H
#define QI_CMD_CHECKPOINT_H

#include "interface/options.h"

extern const struct qi_command qi_checkpoint_save;
extern const struct qi_command qi_checkpoint_export;
extern const struct qi_command qi_checkpoint_restore;
extern const struct qi_command qi_checkpoint_info;
extern const struct qi_command qi_checkpoint_verify;
extern const struct qi_command qi_checkpoint_prune;
extern const struct qi_command qi_checkpoint_label;
extern const struct qi_command qi_checkpoint_consumers;

#endif
