/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other programs and libraries that do the same work. Each is a file peer_NAME.c: how it is found,
 * and its cases, whose reference side drives it. None is needed to build or to run anything else.
 * A GPU is asked for in the same way: not every machine has one.
 */
#ifndef QM_PEER_H
#define QM_PEER_H

#include <stddef.h>

struct qm_peer {
    const char *name;
    const char *package; /* of Debian and Ubuntu; NULL: it cannot be installed */
    /* Writes its version and returns 1, or what is missing and returns 0. */
    int (*find)(char *text, size_t size);
};
extern const struct qm_peer qm_redis, qm_git, qm_lmdb, qm_sqlite, qm_jemalloc, qm_gpu;

/* The path of a program in PATH: 1, or 0 if there is none. */
int qm_find_program(const char *name, char *path, size_t size);

#endif
