/* SPDX-License-Identifier: Apache-2.0 */
/* The plan of a restore in place, shared by the one who makes it and the one who carries it out. */
#ifndef QS_IN_PLACE_H
#define QS_IN_PLACE_H

#include <sys/stat.h>

#include "sources/tree.h"
#include "sources/writer.h"

struct qs_planned {
    enum qs_change_kind kind;
    char *path;
    const struct qr_page *wanted; /* in the state to be restored; NULL for QS_DELETE, QS_KEEP */
    uint8_t present;              /* kind of what is there now; 0: nothing */
    uint8_t changed_since;
    uint8_t blocked;              /* something that was never recorded is in the way */
};

struct qs_in_place {
    struct qs_tree *tree;
    const struct qr_state *state, *newest, *before;
    struct qs_writer writer;
    struct qs_planned *items; /* in path order */
    size_t count, capacity;
    struct qs_directory { /* that are to exist, a directory before those in it */
        char *path;
        const struct qr_page *page;
    } *directories;
    size_t directory_count, directory_capacity;
    uint64_t kept;            /* entries met that are not wanted and stay */
};

int qs_in_place_plan(struct qs_in_place *plan, struct qs_tree *tree, const struct qr_state *state,
                     const struct qr_state *before);
void qs_in_place_finish(struct qs_in_place *plan);

#endif
