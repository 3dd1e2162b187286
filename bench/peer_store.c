/* SPDX-License-Identifier: Apache-2.0 */
/* Qallow's side of the peers, see peer_store.h. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "bench/peer_store.h"

int qm_peer_setup(struct qm_context *context, struct qm_peer_work *work, enum qallow_sync sync,
                  uint64_t writes)
{
    work->writes = writes;
    work->seed = 5;
    work->writer =
        (struct qm_writer){.store = &work->store, .seed = 1, .threads = 1, .length = QM_PEER_DELTA};
    return qm_store_create(context, "store.tlog", sync, context->size / QM_PEER_PAGE, QM_PEER_PAGE,
                           &work->store);
}

int qm_peer_run(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct qm_peer_work *work = context->state;
    double start = qm_now();
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < repeats; i++)
        rc = qm_store_write(&work->writer, work->writes);
    *sample = (struct qm_sample){qm_now() - start, (double)repeats * (double)work->writes};
    return rc;
}

void *qm_peer_library(const char *name, const struct qm_peer_function *functions, size_t count,
                      char *text, size_t size)
{
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        snprintf(text, size, "there is no %s", name);
    for (size_t i = 0; library && i < count; i++) {
        void *symbol = dlsym(library, functions[i].name);
        if (!symbol) {
            snprintf(text, size, "%s has no %s", name, functions[i].name);
            dlclose(library);
            return NULL;
        }
        memcpy(functions[i].pointer, &symbol, sizeof symbol);
    }
    return library;
}
