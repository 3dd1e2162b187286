/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The target of a restore, and the name beside it under which the new content is made until it is
 * whole. One process at a time has that name; what a process that was killed has left there is
 * removed by the next one.
 */
#ifndef QS_TARGET_H
#define QS_TARGET_H

#include <sys/stat.h>

#include "sources/tree_internal.h"

struct qs_target {
    const char *path; /* as the user named it, for messages; the caller's */
    char *parent, *name, *temporary;
    int parent_fd, temporary_fd; /* -1: none */
};
#define QS_NO_TARGET                                                                               \
    {                                                                                              \
        .parent_fd = -1, .temporary_fd = -1                                                        \
    }
/* Splits a path into the directory that holds it, which must exist, and its name. CANNOT_CREATE;
 * NO_MEMORY. Also on failure to be closed. */
int qs_target_open(struct qs_target *target, const char *path);
/* Removes what was made and did not get its name. Keeps the detail of an error. */
void qs_target_close(struct qs_target *target);
/* Makes the temporary file or directory: empty, and temporary_fd is the only one to it (for files:
 * to be written to). BUSY: somebody else is restoring to this target. */
int qs_target_make(struct qs_target *target, int is_directory, mode_t mode);
/* Gives it its name, which is durable then. A directory that has that name is exchanged for it in
 * one step, and removed; anything else is replaced. */
int qs_target_put(struct qs_target *target);

#endif
