/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow replay --in-place`: the recorded part of a directory becomes an epoch. The present state
 * is recorded first, so nothing that was in the directory is lost and going back is a further
 * restore.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "interface/cmd_replay.h"
#include "sources/tree.h"

/* What is under way. */
struct in_place {
    struct qi_context *context;
    const struct replay *replay;
    struct qr_store *store;
    struct qs_tree *tree;
    uint64_t epoch;   /* to go to */
    uint64_t changes; /* of a dry run */
};

static void skipped(void *context, const char *path, const char *why)
{
    if (why)
        qi_note(context, "%s is left alone: %s", qr_quotez(path), why);
}

static int open_tree(struct in_place *p)
{
    char *own[1] = {realpath(p->replay->log, NULL)};
    struct qs_tree_options options = {
        .threads = p->replay->threads,
        .own_files = (const char *const *)own,
        .own_file_count = own[0] ? 1 : 0,
        .skipped = skipped,
        .context = p->context,
    };
    int rc = qs_rules_of_log(p->store, &options.rules);

    if (rc >= 0)
        rc = qs_tree_open(p->replay->in_place, p->store, &options, &p->tree);
    qs_rules_finish(&options.rules);
    free(own[0]);
    return rc;
}

/* Which epoch: the chosen one; else, after an interruption, where that one was going or, with
 * --undo, where it came from. */
static int choose(struct in_place *p)
{
    const char *directory = p->replay->in_place;
    uint64_t to = 0, saved = 0;
    int pending = qs_restore_pending(directory, &to, &saved);

    if (pending < 0)
        return pending;
    if (p->replay->undo && !pending)
        return qr_fail(QALLOW_E_EPOCH_NOT_FOUND,
                       "%s: no restore was interrupted here; to undo one that ended, restore the "
                       "epoch it said it had saved", qr_quotez(directory));
    if (qi_epoch_chosen(p->context))
        return qi_choose_epoch(p->context, p->store, &p->replay->choice, &p->epoch);
    if (!pending)
        return qi_usage(p->context, "--epoch N, --time TIME or --label NAME beside --in-place");
    p->epoch = p->replay->undo ? saved : to;
    qi_note(p->context, "a restore to epoch %llu was interrupted; going to epoch %llu",
            (unsigned long long)to, (unsigned long long)p->epoch);
    return 0;
}

/* --- dry run --- */

static int show_change(void *context, const struct qs_change *change)
{
    static const char *const verbs[] = {"create", "overwrite", "delete", "set attributes of"};
    static const char *const words[] = {"create", "overwrite", "delete", "attributes"};
    struct in_place *p = context;
    size_t length = strlen(change->path);

    p->changes++;
    if (p->context->json) {
        cJSON *object = qi_json_begin(p->context);
        cJSON_AddStringToObject(object, "would", words[change->kind]);
        qi_json_path(object, "path", change->path, length);
        cJSON_AddBoolToObject(object, "changed_since", change->changed_since);
        return qi_json_end(object);
    }
    printf("would %s ", verbs[change->kind]);
    qi_print_name(stdout, change->path, length);
    puts(change->changed_since ? " (changed since the newest epoch)" : "");
    return qi_stdout_check();
}

static int dry_run(struct in_place *p, const struct qr_state *state)
{
    int rc = qs_restore_plan(p->tree, state, show_change, p);
    if (rc == 0)
        qi_note(p->context, "%llu changes to reach epoch %llu; nothing was changed",
                (unsigned long long)p->changes, (unsigned long long)p->epoch);
    return rc;
}

/* --- doing it --- */

static void show_progress(void *context, uint64_t done, uint64_t total)
{
    qi_progress_bytes(context, done, total);
}

static int save_present(struct in_place *p, struct qs_capture *capture)
{
    struct qs_scope scope = {0};
    int rc = qs_capture(p->tree, &scope, capture);

    if (rc == 0 && capture->unstable > 0)
        return qr_fail(QALLOW_E_BUSY, "%s: %llu files are being written to at this moment",
                       qr_quotez(p->replay->in_place), (unsigned long long)capture->unstable);
    if (rc == 0)
        qi_note(p->context, "the present state is epoch %llu: --epoch %llu brings it back",
                (unsigned long long)capture->epoch, (unsigned long long)capture->epoch);
    return rc;
}

static int restore(struct in_place *p, const struct qr_state *state)
{
    struct qs_restore_result result = {0};
    struct qs_capture capture = {0};
    struct qi_progress progress;
    int rc = save_present(p, &capture);

    if (rc < 0)
        return rc;
    qi_progress_begin(&progress, p->context, "restoring");
    struct qs_restore_options options = {
        .threads = p->replay->threads,
        .max_memory = p->replay->max_memory,
        .progress = show_progress,
        .context = &progress,
        .digest = qr_state_digest(state),
    };
    rc = qs_restore_in_place(p->tree, state, p->epoch, &options, &result);
    qi_progress_end(&progress);
    return rc < 0 ? rc
                  : replay_say_restored(p->context, p->epoch, capture.epoch, p->replay->in_place,
                                        &result);
}

int replay_in_place(struct qi_context *context, const struct replay *replay)
{
    struct in_place p = {.context = context, .replay = replay};
    struct qr_store_options options = qi_store_options(context, replay->max_memory);
    struct qr_state *state = NULL;
    int rc, closed;

    options.writable = !replay->dry_run;
    qi_signals_catch();
    rc = qi_open_store(replay->log, &options, &p.store);
    if (rc == QALLOW_E_BUSY)
        qi_hint(context, "stop the recorder first: qallow accelerator --stop --log %s",
                qr_quotez(replay->log));
    if (rc < 0)
        return rc;
    rc = choose(&p);
    if (rc == 0)
        rc = qr_store_state_at(p.store, p.epoch, &state);
    if (rc == 0)
        rc = open_tree(&p);
    if (rc == 0)
        rc = replay->dry_run ? dry_run(&p, state) : restore(&p, state);
    if (rc < 0)
        rc = qi_report(context, rc);
    qs_tree_close(p.tree);
    qr_state_destroy(state);
    closed = qr_store_close(p.store);
    return rc == 0 ? closed : rc;
}
