/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow replay`: everything that reads a log. Its options, and which action they mean; the
 * actions are in the other cmd_replay_*.c.
 */
#include "interface/cmd_replay.h"

#include <stddef.h>
#include <string.h>

#include "interface/cmd_vm.h"
#include "interface/commands.h"
#include "telemetry/telemetry.h"

static const char *parse_range(const char *text, void *field)
{
    if (!strstr(text, ".."))
        return "two epochs or labels like 3..7, or 3.. for up to the newest";
    memcpy(field, &text, sizeof text);
    return NULL;
}

#define FIELD(member) QI_FIELD(struct replay, member)

static const struct qi_option options[] = {
    {.name = "LOG", .positional = true, .required = true, .kind = QI_TEXT, FIELD(log),
     .argument = "LOG", .help = "the log, or a checkpoint file; it may be in use"},
    QI_EPOCH_OPTIONS(struct replay, "take"),
    {.name = "list", .letter = 'l', .kind = QI_FLAG, FIELD(list), .group = "action",
     .help = "list the epochs (what is done if nothing else is asked for)"},
    {.name = "output", .letter = 'o', .kind = QI_TEXT, FIELD(output), .argument = "DIR",
     .help = "restore the epoch into this directory; with --page: the file to write, - for stdout"},
    {.name = "in-place", .kind = QI_TEXT, FIELD(in_place), .argument = "DIR", .group = "action",
     .help = "turn the recorded part of this directory into the epoch"},
    {.name = "dry-run", .letter = 'n', .kind = QI_FLAG, FIELD(dry_run),
     .help = "with --in-place: say what would change, change nothing"},
    {.name = "undo", .kind = QI_FLAG, FIELD(undo),
     .help = "with --in-place: go back to before the restore that was interrupted"},
    {.name = "force", .letter = 'f', .kind = QI_FLAG, FIELD(force),
     .help = "replace an --output that has something in it; --in-place: restore into another "
             "directory than the one that was recorded"},
    {.name = "page", .letter = 'p', .kind = QI_TEXT, FIELD(page), .argument = "NAME",
     .group = "action", .help = "print the bytes of one file, or the target of a symlink"},
    {.name = "diff", .letter = 'd', .kind = QI_CUSTOM, FIELD(diff), .parse = parse_range,
     .argument = "A..B", .group = "action",
     .help = "what differs between two epochs: names and byte ranges"},
    {.name = "stat", .kind = QI_FLAG, FIELD(stat), .group = "diff form",
     .help = "with --diff: sums instead of ranges"},
    {.name = "patch", .kind = QI_FLAG, FIELD(patch), .group = "diff form",
     .help = "with --diff: the lines that differ, through diff -u"},
    {.name = "log-of", .kind = QI_TEXT, FIELD(log_of), .argument = "NAME", .group = "action",
     .help = "the epochs that touched a name, across renames"},
    {.name = "blame", .kind = QI_TEXT, FIELD(blame), .argument = "NAME[:OFFSET[+LEN]]",
     .group = "action", .help = "for each byte, the epoch that last made it differ"},
    {.name = "events", .kind = QI_FLAG, FIELD(events), .group = "action",
     .help = "what happened, from the first epoch on: pages, deltas, commits, and what programs "
             "have emitted"},
    {.name = "type", .kind = QI_CUSTOM, FIELD(types), .parse = replay_parse_types,
     .argument = "TYPES",
     .help = "with --events: only page, delta, commit, recompute, checkpoint, watcher, program or "
             "user; several with commas"},
    {.name = "verify", .kind = QI_FLAG, FIELD(verify), .group = "action",
     .help = "recompute the digest of every epoch from the bytes that it changed, and now and then "
             "from every byte"},
    {.name = "from-scratch", .kind = QI_FLAG, FIELD(from_scratch),
     .help = "with --verify: from every byte of every epoch, which takes epochs times size"},
    {.name = "plan", .kind = QI_FLAG, FIELD(plan), .group = "action",
     .help = "what would be read to reach the epoch"},
    {.name = "salvage", .kind = QI_FLAG, FIELD(salvage),
     .help = "of a damaged log, give what can be read and say what cannot"},
    {.name = "follow", .letter = 'F', .kind = QI_FLAG, FIELD(follow), .group = "action",
     .help = "print epochs as they come, those after --epoch first; with --output: bring DIR or "
             "the file to each of them, whole or not at all"},
    {.name = "consumer", .kind = QI_TEXT, FIELD(consumer), .argument = "NAME",
     .help = "with --follow and --output: acknowledge every epoch under this name, so that prune "
             "keeps what is needed to go on"},
    {.name = "threads", .letter = 't', .kind = QI_NUMBER, FIELD(threads), .argument = "N",
     .minimum = 1, .maximum = 256, .help = "threads to use (default: as many as CPUs)"},
    {.name = "max-memory", .kind = QI_SIZE, FIELD(max_memory), .argument = "SIZE",
     .minimum = 8 << 20, .fallback = "64M",
     .help = "memory for the buffers of a restore, which runs on fewer threads if need be; for the "
             "state of a machine (default: 4G)"},
    {.name = "telemetry", .kind = QI_TEXT, FIELD(telemetry), .argument = "FILE",
     .help = "append metrics to this CSV file, once at the end, also after a failure"},
    {.name = NULL},
};

/* Options that mean something only beside another one. */
static int check_companions(struct qi_context *context, const struct replay *r)
{
    if ((r->dry_run || r->undo) && !r->in_place)
        return qi_usage(context, "--in-place DIR beside --dry-run or --undo");
    if (r->from_scratch && !r->verify)
        return qi_usage(context, "--verify beside --from-scratch");
    if ((r->stat || r->patch) && !r->diff)
        return qi_usage(context, "--diff A..B beside --stat or --patch");
    if (r->patch && context->json)
        return qi_usage(context, "--patch or --json, not both");
    if (r->types && !r->events)
        return qi_usage(context, "--events beside --type");
    if (r->force && !r->output && !r->in_place)
        return qi_usage(context, "--output DIR or --in-place DIR beside --force");
    if (r->output && (r->list || r->in_place || r->diff || r->log_of || r->blame || r->verify ||
                      r->events || r->plan))
        return qi_usage(context, "--output with nothing else to do than --page or --follow");
    if (r->consumer && !(r->follow && r->output))
        return qi_usage(context, "--follow and --output FILE beside --consumer");
    if (r->undo && qi_epoch_chosen(context))
        return qi_usage(context, "--undo or an epoch, not both: it goes back to before the "
                                 "restore that was interrupted");
    if (r->diff && qi_epoch_chosen(context))
        return qi_usage(context, "the epochs of --diff in its A..B only");
    return 0;
}

/* An epoch and nothing to do with it: of a machine's log its state is shown. */
static int replay_machine(struct qi_context *context, const struct replay *r,
                          struct qr_store *store)
{
    uint64_t epoch = 0;
    int rc = qi_choose_epoch(context, store, &r->choice, &epoch);

    if (rc < 0)
        return rc;
    rc = qv_is_session(r->log, epoch);
    if (rc < 0)
        return rc;
    if (rc == 0)
        return qi_usage(context, "what to do with the epoch: --output DIR, --in-place DIR, "
                                 "--page NAME or --list");
    return vm_show(context, r->log, epoch,
                   qi_given(context, "max-memory") ? r->max_memory : QV_LOG_MEMORY);
}

static int run_open(struct qi_context *context, const struct replay *r, struct qr_store *store)
{
    if (r->page)
        return replay_page(context, r, store);
    if (r->output && !r->follow)
        return replay_output(context, r, store);
    if (r->diff)
        return replay_diff(context, r, store);
    if (r->log_of)
        return replay_log_of(context, r, store);
    if (r->blame)
        return replay_blame(context, r, store);
    if (r->events)
        return replay_events(context, r, store);
    if (r->plan)
        return replay_plan(context, r, store);
    if (r->follow)
        return replay_follow(context, r, store);
    if (qi_epoch_chosen(context) && !r->list)
        return replay_machine(context, r, store);
    return replay_list(context, r, store);
}

static int act(struct qi_context *context, const struct replay *r)
{
    struct qr_store *store = NULL;
    int rc;

    if (r->in_place)
        return replay_in_place(context, r);
    if (r->verify)
        return replay_verify(context, r);
    rc = qi_open_log(context, r->log, r->threads, r->max_memory, r->salvage, &store);
    if (rc == QALLOW_E_DAMAGED && !r->salvage)
        qi_hint(context, "--salvage gives what can be read; `qallow checkpoint verify` says where "
                         "the damage is");
    if (rc < 0)
        return rc;
    rc = run_open(context, r, store);
    if (rc < 0) { /* closing must not change the detail of the failure */
        rc = qi_report(context, rc);
        qr_store_close(store);
        return rc;
    }
    int closed = qr_store_close(store);
    return closed < 0 ? closed : rc;
}

static int run(struct qi_context *context, const void *values)
{
    struct replay r = *(const struct replay *)values;
    struct qt_csv *csv = NULL;
    int rc = check_companions(context, &r);

    if (rc != 0)
        return rc;
    if (r.threads == 0)
        r.threads = qi_default_threads();
    rc = qi_telemetry_open(r.telemetry, &csv);
    if (rc < 0)
        return rc;
    rc = act(context, &r);
    qi_telemetry_close(context, r.telemetry, csv);
    return rc;
}

const struct qi_command qi_command_replay = {
    .name = "replay",
    .summary = "list the epochs of a log and have any of them back",
    .description =
        "Reads a log, which may be in use by a recorder, or a checkpoint file. Without an action "
        "it lists the epochs; of a log of `qallow vm`, --epoch alone shows the machine's state.\n\n"
        "--output builds the tree beside DIR, checks its digest and only then gives it its name. "
        "--in-place first records the present state as an epoch, so that it can be undone by a "
        "further restore, then replaces file by file, and records the result. Names that were "
        "not recorded before are kept. If a recorder owns the log, it records both states. "
        "Interrupted, it goes on when it is run again, or goes back with --undo.\n\n"
        "Names are those of the tree, like src/main.c. What is printed of them has control "
        "characters, backslashes and bytes that are not UTF-8 as \\xHH.",
    .options = options,
    .values_size = sizeof(struct replay),
    .run = run,
    .examples =
        (const struct qi_example[]){
            {"qallow replay work.tlog", "list the epochs"},
            {"qallow replay work.tlog --epoch 7 --output before/", "restore epoch 7"},
            {"qallow replay work.tlog --time 2026-11-21T10:00:00Z --in-place . --dry-run",
             "what going back to ten o'clock would change"},
            {"qallow replay work.tlog --epoch 7 --page src/main.c", "print a file as it was"},
            {"qallow replay work.tlog --diff 7.. --patch", "what has changed since epoch 7"},
            {"qallow replay work.tlog --blame notes.txt:100+40", "who wrote these 40 bytes"},
            {"qallow replay work.tlog --events --type page,commit", "which pages came and went"},
            {"qallow replay work.tlog --verify", "is every epoch what it was?"},
            {0}},
    .exits = (const struct qi_exit[]){{0, NULL},
                                      {1, "--diff: the epochs differ"},
                                      {64, NULL},
                                      {65, NULL},
                                      {66, NULL},
                                      {71, NULL},
                                      {73, NULL},
                                      {74, NULL},
                                      {75, NULL},
                                      {77, NULL},
                                      {0}},
};
