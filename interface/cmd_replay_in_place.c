/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow replay --in-place`: the recorded part of a directory becomes an epoch. The present state
 * is recorded first, so nothing that was in the directory is lost and going back is a further
 * restore. What may be deleted is decided by the epoch that was the newest before that, so that a
 * dry run, which records nothing, shows what will happen. The state restored is recorded, too:
 * then the newest epoch is what is on the disk, and the next restore knows every name.
 *
 * A log that a recorder owns is read beside it. The recorder is asked for its barrier before and
 * after: the epoch it answers first holds the present state, the second one the result. What it
 * sees of the restore in between are epochs as well.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "accelerator/control_client.h"
#include "interface/cmd_replay.h"
#include "sources/tree.h"

/* What is under way. */
struct in_place {
    struct qi_context *context;
    const struct replay *replay;
    struct qr_store *store;
    struct qs_tree *tree;
    uint64_t epoch;          /* to go to */
    struct qr_state *before; /* only names that this has are deleted */
    uint64_t changes;        /* of a dry run */
    int blocked;
    uint64_t barrier;        /* of the recorder that owns the log: the present state; 0: nobody */
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

/* After an interruption: on to where that restore was going, with what was recorded before it; or
 * back, which removes what came from there. */
static int choose_pending(struct in_place *p, const struct qs_pending *pending)
{
    p->epoch = p->replay->undo ? pending->saved : pending->to;
    if (qi_epoch_chosen(p->context)) {
        int rc = qi_choose_epoch(p->context, p->store, &p->replay->choice, &p->epoch);
        if (rc != 0)
            return rc;
        if (p->epoch != pending->to && p->epoch != pending->saved)
            return qr_fail(QALLOW_E_CANNOT_CREATE,
                           "%s: a restore to epoch %llu was interrupted here: finish it (without "
                           "--epoch), or take it back (--undo), before another one",
                           qr_quotez(p->replay->in_place), (unsigned long long)pending->to);
    }
    qi_note(p->context, "a restore to epoch %llu was interrupted; going to epoch %llu",
            (unsigned long long)pending->to, (unsigned long long)p->epoch);
    return qr_store_state_at(p->store,
                             p->epoch == pending->to ? pending->before : pending->to, &p->before);
}

/* Which epoch, and what was recorded before this began. */
static int choose(struct in_place *p)
{
    const char *directory = p->replay->in_place;
    struct qs_pending pending;
    int rc, interrupted = qs_restore_pending(directory, &pending);

    if (interrupted < 0)
        return interrupted;
    if (interrupted)
        return choose_pending(p, &pending);
    if (p->replay->undo)
        return qr_fail(QALLOW_E_EPOCH_NOT_FOUND,
                       "%s: no restore was interrupted here; to undo one that ended, restore the "
                       "epoch it said it had saved", qr_quotez(directory));
    if (!qi_epoch_chosen(p->context))
        return qi_usage(p->context, "--epoch N, --time TIME or --label NAME beside --in-place");
    rc = qi_choose_epoch(p->context, p->store, &p->replay->choice, &p->epoch);
    return rc != 0 ? rc
                   : qr_store_state_at(p->store, qr_state_epoch(qr_store_state(p->store)),
                                       &p->before);
}

static int check_target(struct in_place *p)
{
    int rc = qs_restore_is_target(p->tree);

    if (rc != 0 || p->replay->force)
        return rc < 0 ? rc : 0;
    return qr_fail(QALLOW_E_CANNOT_CREATE,
                   "%s is not the directory that was recorded; --force restores into it anyway",
                   qr_quotez(p->replay->in_place));
}

/* --- the recorder that owns the log --- */

static int ask(const struct in_place *p, const char *request, cJSON **reply)
{
    char *answer = NULL;
    int rc = qa_control_request(p->replay->log, request, &answer);

    if (rc < 0)
        return rc;
    *reply = cJSON_Parse(answer);
    qr_free(answer);
    return *reply ? 0 : qr_fail(QALLOW_E_UNAVAILABLE, "the recorder's answer makes no sense");
}

/* The epoch that holds everything that was there when this was called. */
static int ask_barrier(const struct in_place *p, uint64_t *epoch)
{
    cJSON *reply = NULL;
    int rc = ask(p, "{\"request\":\"sync\"}", &reply);
    const cJSON *number = cJSON_GetObjectItemCaseSensitive(reply, "epoch");

    *epoch = cJSON_IsNumber(number) && number->valuedouble > 0 ? (uint64_t)number->valuedouble : 0;
    cJSON_Delete(reply);
    return rc == 0 && *epoch == 0
               ? qr_fail(QALLOW_E_UNAVAILABLE, "the recorder's answer makes no sense")
               : rc;
}

/* Nothing is saved by a recorder of another directory. */
static int check_owner(const struct in_place *p)
{
    char path[PATH_MAX];
    struct stat there, here;
    cJSON *reply = NULL;
    int rc = ask(p, "{\"request\":\"status\"}", &reply), n;

    if (rc < 0)
        return rc;
    const cJSON *pid = cJSON_GetObjectItemCaseSensitive(reply, "pid");
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(reply, "path"));
    if (name && *name == '/')
        n = snprintf(path, sizeof path, "%s", name);
    else /* as it was given there */
        n = snprintf(path, sizeof path, "/proc/%d/cwd/%s", pid ? pid->valueint : 0,
                     name ? name : "");
    if (n >= (int)sizeof path || stat(path, &there) < 0 || stat(p->replay->in_place, &here) < 0 ||
        there.st_dev != here.st_dev || there.st_ino != here.st_ino)
        rc = qr_fail(QALLOW_E_BUSY, "%s: a recorder owns the log, and records %s",
                     qr_quotez(p->replay->in_place), name ? name : "something else");
    cJSON_Delete(reply);
    return rc;
}

/* Reopens the log behind the barrier. What is deleted goes by what was recorded before this. */
static int pass_barrier(struct in_place *p)
{
    uint64_t before = qr_state_epoch(p->before);
    int rc = check_owner(p);

    if (rc == 0)
        rc = ask_barrier(p, &p->barrier);
    if (rc < 0)
        return rc;
    qr_state_destroy(p->before);
    p->before = NULL;
    qr_store_close(p->store);
    p->store = NULL;
    rc = qi_open_log(p->context, p->replay->log, p->replay->threads, p->replay->max_memory, 0,
                     &p->store);
    return rc < 0 ? rc : qr_store_state_at(p->store, before, &p->before);
}

/* --- dry run --- */

static int show_change(void *context, const struct qs_change *change)
{
    static const char *const verbs[] = {"create", "overwrite", "delete", "set attributes of",
                                        "keep"};
    static const char *const words[] = {"create", "overwrite", "delete", "attributes", "keep"};
    struct in_place *p = context;
    size_t length = strlen(change->path);

    p->changes += change->kind != QS_KEEP;
    p->blocked |= change->blocked;
    if (p->context->json) {
        cJSON *object = qi_json_begin(p->context);
        cJSON_AddStringToObject(object, "would", words[change->kind]);
        qi_json_path(object, "path", change->path, length);
        cJSON_AddBoolToObject(object, "changed_since", change->changed_since);
        cJSON_AddBoolToObject(object, "refused", change->blocked);
        return qi_json_end(object);
    }
    printf("would %s ", verbs[change->kind]);
    qi_print_name(stdout, change->path, length);
    puts(change->blocked           ? " (refused: it holds what was not recorded before)"
         : change->kind == QS_KEEP ? " (not recorded before)"
         : change->changed_since   ? " (changed since the newest epoch)"
                                   : "");
    return qi_stdout_check();
}

static int dry_run(struct in_place *p, const struct qr_state *state)
{
    int rc = qs_restore_plan(p->tree, state, p->before, show_change, p);
    if (rc == 0 && p->blocked)
        return qr_fail(QALLOW_E_CANNOT_CREATE, "epoch %llu cannot be reached: what was not "
                       "recorded before is in the way", (unsigned long long)p->epoch);
    if (rc == 0)
        qi_note(p->context, "%llu changes to reach epoch %llu; nothing was changed",
                (unsigned long long)p->changes, (unsigned long long)p->epoch);
    return rc;
}

/* --- doing it --- */

/* What the callbacks of a restore get. */
struct listener {
    struct in_place *in_place;
    struct qi_progress progress;
};

static void show_progress(void *context, uint64_t done, uint64_t total)
{
    qi_progress_bytes(&((struct listener *)context)->progress, done, total);
}

static void show_kept(void *context, const char *path)
{
    struct listener *listener = context;
    qi_progress_end(&listener->progress);
    qi_note(listener->in_place->context, "kept: %s was not recorded before", qr_quotez(path));
}

static int save_present(struct in_place *p, struct qs_capture *capture)
{
    struct qs_scope scope = {0};
    int rc = 0;

    if (p->barrier) /* or a later one: it is the newest one that the restore is measured by */
        capture->epoch = qr_state_epoch(qr_store_state(p->store));
    else
        rc = qs_capture(p->tree, &scope, capture);
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
    struct listener listener = {.in_place = p};
    int rc = save_present(p, &capture);

    if (rc < 0)
        return rc;
    qi_progress_begin(&listener.progress, p->context, "restoring");
    struct qs_restore_options options = {
        .threads = p->replay->threads,
        .max_memory = p->replay->max_memory,
        .progress = show_progress,
        .kept = show_kept,
        .context = &listener,
        .before = p->before,
        .digest = qr_state_digest(state),
    };
    rc = qs_restore_in_place(p->tree, state, p->epoch, &options, &result);
    qi_progress_end(&listener.progress);
    if (rc == 0)
        rc = replay_say_restored(p->context, p->epoch, capture.epoch, p->replay->in_place, &result);
    if (rc < 0)
        return rc;
    return p->barrier ? ask_barrier(p, &p->barrier)
                      : qs_capture(p->tree, &(struct qs_scope){0}, &capture);
}

/* For writing, or for reading if that is enough or a recorder has the log. */
static int open_for(struct in_place *p, int *is_live)
{
    struct qr_store_options options = qi_store_options(p->context, p->replay->max_memory);
    cJSON *reply = NULL;

    *is_live = 0;
    options.writable = !p->replay->dry_run;
    int rc = qi_open_store(p->replay->log, &options, &p->store);
    if (rc != QALLOW_E_BUSY)
        return rc;
    char *busy = strdup(qallow_error_detail());
    rc = ask(p, "{\"request\":\"status\"}", &reply);
    cJSON_Delete(reply);
    if (rc == QALLOW_E_UNAVAILABLE) { /* no recorder, but a program of another kind */
        rc = qr_fail(QALLOW_E_BUSY, "%s", busy ? busy : "the log is in use");
    } else if (rc == 0) {
        options.writable = 0;
        *is_live = 1;
        rc = qi_open_store(p->replay->log, &options, &p->store);
    }
    free(busy);
    return rc;
}

int replay_in_place(struct qi_context *context, const struct replay *replay)
{
    struct in_place p = {.context = context, .replay = replay};
    struct qr_state *state = NULL;
    int rc, closed = 0, is_live;

    qi_signals_catch();
    rc = open_for(&p, &is_live);
    if (rc < 0)
        return rc;
    rc = choose(&p);
    if (rc == 0 && is_live)
        rc = pass_barrier(&p);
    if (rc == 0)
        rc = qr_store_state_at(p.store, p.epoch, &state);
    if (rc == 0)
        rc = open_tree(&p);
    if (rc == 0)
        rc = check_target(&p);
    if (rc == 0)
        rc = replay->dry_run ? dry_run(&p, state) : restore(&p, state);
    if (rc < 0)
        rc = qi_report(context, rc);
    qs_tree_close(p.tree);
    qr_state_destroy(state);
    qr_state_destroy(p.before);
    if (p.store)
        closed = qr_store_close(p.store);
    return rc == 0 ? closed : rc;
}
