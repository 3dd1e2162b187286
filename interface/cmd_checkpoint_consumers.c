/* SPDX-License-Identifier: Apache-2.0 */
/* `qallow checkpoint consumers`: who follows a log, and how far it has come. */
#include <stddef.h>
#include <string.h>

#include "interface/cmd_checkpoint.h"
#include "interface/epochs.h"
#include "runtime/consumers.h"

struct consumers {
    const char *log, *acknowledge, *remove;
    uint64_t epoch;
};

#define FIELD(member) QI_FIELD(struct consumers, member)

static const struct qi_option options[] = {
    {.name = "LOG", .positional = true, .required = true, .kind = QI_TEXT, FIELD(log),
     .argument = "LOG", .help = "the log; it may be in use"},
    {.name = "acknowledge", .letter = 'a', .kind = QI_TEXT, FIELD(acknowledge), .argument = "NAME",
     .group = "action", .help = "say that this consumer holds an epoch; makes it known"},
    {.name = "epoch", .letter = 'e', .kind = QI_NUMBER, FIELD(epoch), .argument = "N", .minimum = 1,
     .help = "with --acknowledge: the epoch (default: the newest)"},
    {.name = "remove", .kind = QI_TEXT, FIELD(remove), .argument = "NAME", .group = "action",
     .help = "forget a consumer; the epochs that only it needs may then be pruned"},
    {.name = NULL},
};

struct listing {
    const struct qi_context *context;
    uint64_t newest;
    int64_t now;
};

static int show(void *context, const struct qr_consumer *consumer)
{
    const struct listing *l = context;
    char silent[QI_TEXT_MAX];
    uint64_t behind = l->newest - (consumer->epoch < l->newest ? consumer->epoch : l->newest);
    int64_t ns = l->now > consumer->time_ns ? l->now - consumer->time_ns : 0;

    if (l->context->json) {
        cJSON *object = qi_json_begin(l->context);
        qi_json_path(object, "consumer", consumer->name, strlen(consumer->name));
        qi_json_u64(object, "epoch", consumer->epoch);
        qi_json_u64(object, "behind", behind);
        qi_json_time(object, "time", consumer->time_ns);
        qi_json_i64(object, "silent_ns", ns);
        return qi_json_end(object);
    }
    printf("%8llu  %8llu behind  silent %-10s  ", (unsigned long long)consumer->epoch,
           (unsigned long long)behind, qi_format_duration(ns, silent));
    qi_print_name(stdout, consumer->name, strlen(consumer->name));
    putchar('\n');
    return qi_stdout_check();
}

static int act(struct qi_context *context, const struct consumers *c, struct qr_store *store)
{
    struct qr_store_info info;
    struct listing listing = {.context = context, .now = qr_os_posix()->now_ns(NULL)};

    qr_store_info(store, &info);
    listing.newest = info.last_epoch;
    if (c->remove)
        return qr_consumer_remove(store, c->remove);
    if (c->acknowledge)
        return qr_consumer_acknowledge(store, c->acknowledge,
                                       c->epoch ? c->epoch : info.last_epoch);
    return qr_consumers_each(store, show, &listing);
}

static int run(struct qi_context *context, const void *values)
{
    const struct consumers *c = values;
    struct qr_store *store = NULL;

    if (c->epoch && !c->acknowledge)
        return qi_usage(context, "--acknowledge NAME beside --epoch");
    int rc = qi_open_log(context, c->log, 0, 0, 0, &store);
    if (rc < 0)
        return rc;
    rc = act(context, c, store);
    if (rc < 0)
        rc = qi_report(context, rc);
    int closed = qr_store_close(store);
    return rc == 0 ? closed : rc;
}

const struct qi_command qi_checkpoint_consumers = {
    .name = "consumers",
    .summary = "who follows a log, and how far it has come",
    .description =
        "Lists the consumers that have acknowledged epochs, with the epoch that each holds, how "
        "many it is behind, and how long ago it said so. prune refuses to drop what a consumer "
        "still needs. `qallow replay --follow --output FILE --consumer NAME` acknowledges by "
        "itself; others do it with --acknowledge.",
    .options = options,
    .values_size = sizeof(struct consumers),
    .run = run,
    .examples = (const struct qi_example[]){
        {"qallow checkpoint consumers chain.tlog", "list them"},
        {"qallow checkpoint consumers chain.tlog --acknowledge rollout-3 --epoch 17",
         "rollout-3 holds epoch 17"},
        {"qallow checkpoint consumers chain.tlog --remove rollout-3", "it is gone for good"},
        {0}},
    .exits = (const struct qi_exit[]){{0, NULL}, {64, NULL}, {65, NULL}, {66, NULL}, {74, NULL},
                                      {75, NULL}, {77, NULL}, {0}},
};
