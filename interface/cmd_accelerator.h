/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of `qallow accelerator` share: the parsed options, and what can be done. */
#ifndef QI_CMD_ACCELERATOR_H
#define QI_CMD_ACCELERATOR_H

#include <cjson/cJSON.h>

#include "interface/options.h"
#include "interface/values.h"
#include "qallow/accelerator.h"
#include "runtime/store.h"

/* --sync: alone it is the request, with a value the durability. */
struct accelerator_sync {
    int request;
    enum qr_sync mode;
    int interval_ms;
};

struct accelerator {
    struct qi_list watch, excludes, paths;
    const char *file, *log, *label, *telemetry, *prometheus, *cpu_mask, *command, *export_to;
    int threads, compress, once, poll, no_poll, no_watch, no_log, no_cache, include_git, no_ignore;
    int hash, clock, verbose;
    int stop, status, get, cat;
    uint64_t since, wait;
    int64_t settle, max_settle, sweep, keep_time, telemetry_interval, timeout;
    uint64_t keep_bytes, max_file_size, max_memory, shm_size, content;
    struct accelerator_sync sync;
    struct qi_uuid uuid;
};

/* --- cmd_accelerator_keep.c --- */
/* Keeps until a signal comes: each --watch (or --file) on a thread of its own. */
int accelerator_keep(struct qi_context *context, const struct accelerator *a);

/* --- cmd_accelerator_ask.c --- */
/* --sync, --label, --status --log, --stop: asks the keeper over its socket. */
int accelerator_ask(struct qi_context *context, const struct accelerator *a);
/* "PATH.tlog", with PATH absolute; freed with qr_free(). NO_INPUT, PERMISSION, NO_MEMORY. */
int accelerator_default_log(const char *path, char **log);

/* --- cmd_accelerator_query.c --- */
/* --since, --wait, --export, --status: asks the cache. */
int accelerator_query(struct qi_context *context, const struct accelerator *a);
/* What the cache says of a file. */
void accelerator_json_file(cJSON *object, const char *path, const struct qallow_file *file,
                           uint32_t hash_bytes);

/* --- cmd_accelerator_get.c --- */
/* --get, --cat: asks for each path the cache that covers it. */
int accelerator_get(struct qi_context *context, const struct accelerator *a);

#endif
