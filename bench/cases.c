/* SPDX-License-Identifier: Apache-2.0 */
/* The table of everything that can be measured, the units, and the peers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/case.h"
#include "bench/peer.h"

const struct qm_unit qm_gb_s = {"GB/s", 1e-9, 0};
const struct qm_unit qm_mb_s = {"MB/s", 1e-6, 0};
const struct qm_unit qm_million_s = {"M/s", 1e-6, 0};
const struct qm_unit qm_thousand_s = {"k/s", 1e-3, 0};
const struct qm_unit qm_ns = {"ns", 1e9, 1};
const struct qm_unit qm_us = {"us", 1e6, 1};
const struct qm_unit qm_ms = {"ms", 1e3, 1};

static const struct qm_case *const families[] = {
    qm_kernel_cases,   qm_page_cases,       qm_digest_cases, qm_commit_cases,   qm_log_cases,
    qm_recovery_cases, qm_checkpoint_cases, qm_replay_cases, qm_tensor_cases,   qm_cache_cases,
    qm_scaling_cases,  qm_propagate_cases,  qm_vm_cases,     qm_jemalloc_cases, qm_redis_cases,
    qm_git_cases,      qm_lmdb_cases,       qm_sqlite_cases,
};

const struct qm_case *qm_case_at(size_t i)
{
    for (size_t f = 0; f < sizeof families / sizeof *families; f++)
        for (const struct qm_case *what = families[f]; what->name; what++)
            if (i-- == 0)
                return what;
    return NULL;
}

static const struct qm_peer *const peers[] = {&qm_redis,    &qm_git, &qm_lmdb, &qm_sqlite,
                                              &qm_jemalloc, &qm_gpu, NULL};

const char *qm_peer_name(unsigned i) { return peers[i] ? peers[i]->name : NULL; }

int qm_peer_find(unsigned i, char *text, size_t size)
{
    char found[160];
    if (peers[i]->find(found, sizeof found)) {
        snprintf(text, size, "%s", found);
        return 1;
    }
    if (peers[i]->package)
        snprintf(text, size, "%s: install it with `apt-get install %s`", found, peers[i]->package);
    else
        snprintf(text, size, "%s", found);
    return 0;
}

int qm_find_program(const char *name, char *path, size_t size)
{
    const char *at = getenv("PATH");
    while (at && *at) {
        size_t length = strcspn(at, ":");
        int n = snprintf(path, size, "%.*s/%s", (int)length, at, name);
        if (length && n > 0 && (size_t)n < size && access(path, X_OK) == 0)
            return 1;
        at += length + (at[length] == ':');
    }
    return 0;
}
