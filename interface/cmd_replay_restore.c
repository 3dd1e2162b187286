/* SPDX-License-Identifier: Apache-2.0 */
/* `qallow replay --output` and `--page`: an epoch, or one file of it, given back. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "interface/cmd_replay.h"
#include "runtime/query.h"
#include "sources/path.h"
#include "sources/stop.h"
#include "sources/target.h"
#include "sources/tensor.h"
#include "sources/tree.h"

enum { COPY_BUFFER = 1 << 20 };

/* --- what could not be read of a damaged log --- */

struct lost {
    const struct qi_context *context;
    uint64_t count;
};

static int say_lost(void *context, const char *name, const struct qr_page *page, const char *why)
{
    struct lost *lost = context;
    lost->count++;
    qi_error(lost->context, "lost: %s (%llu bytes): %s", qr_quotez(name),
             (unsigned long long)page->size, why);
    return 0;
}

/* With --salvage: takes out of the state what cannot be read. */
static int salvage(const struct qi_context *context, const struct replay *replay,
                   struct qr_store *store, struct qr_state *state, uint64_t *count)
{
    struct lost lost = {.context = context};
    int rc = replay->salvage ? qr_salvage_state(store, state, say_lost, &lost) : 0;
    *count = lost.count;
    return rc;
}

/* --- a whole epoch --- */

static void show_progress(void *context, uint64_t done, uint64_t total)
{
    qi_progress_bytes(context, done, total);
}

int replay_say_restored(const struct qi_context *context, uint64_t epoch, uint64_t saved,
                        const char *target, const struct qs_restore_result *result)
{
    char size[QI_TEXT_MAX];

    if (!context->json) {
        qi_note(context, "epoch %llu restored to %s: %llu file%s, %llu director%s, %llu symlink%s, "
                "%s", (unsigned long long)epoch, qr_quotez(target),
                (unsigned long long)result->files, result->files == 1 ? "" : "s",
                (unsigned long long)result->directories, result->directories == 1 ? "y" : "ies",
                (unsigned long long)result->symlinks, result->symlinks == 1 ? "" : "s",
                qi_format_size(result->bytes, size));
        return 0;
    }
    cJSON *object = qi_json_begin(context);
    qi_json_u64(object, "epoch", epoch);
    if (saved > 0)
        qi_json_u64(object, "saved_epoch", saved);
    qi_json_path(object, "target", target, strlen(target));
    qi_json_u64(object, "files", result->files);
    qi_json_u64(object, "directories", result->directories);
    qi_json_u64(object, "symlinks", result->symlinks);
    qi_json_u64(object, "bytes", result->bytes);
    return qi_json_end(object);
}

static void hint_at_force(const struct qi_context *context, const struct replay *replay, int rc)
{
    if (rc == QALLOW_E_CANNOT_CREATE && !replay->force &&
        faccessat(AT_FDCWD, replay->output, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        qi_hint(context, "--force replaces it");
}

/* A whole epoch of tensors. */
static int restore_tensors(const struct qi_context *context, const struct replay *replay,
                           struct qr_store *store, const struct qr_state *state)
{
    struct qs_tensor_restore done = {0};
    struct qr_state *before = NULL;
    if (replay->replaces) /* if it has been pruned since, so be it */
        (void)qr_store_state_at(store, replay->replaces, &before);
    struct qs_tensor_restore_options options = {
        .force = replay->force, .threads = replay->threads, .before = before};
    int rc = qs_tensors_restore(store, state, replay->output, &options, &done);

    qr_state_destroy(before);
    hint_at_force(context, replay, rc);
    struct qs_restore_result result = {.files = done.files, .bytes = done.bytes,
                                       .directories = done.files > 1};
    return rc ? rc
              : replay_say_restored(context, qr_state_epoch(state), 0, replay->output, &result);
}

int replay_restore(struct qi_context *context, const struct replay *replay, struct qr_store *store,
                   uint64_t epoch)
{
    struct qr_state *state = NULL;
    struct qs_restore_result result = {0};
    struct qi_progress progress;
    struct qr_store_info info;
    uint64_t lost = 0;
    int rc;

    qr_store_info(store, &info);
    if (info.first_epoch == 0) /* an empty tree would be a lie */
        return qr_fail(QALLOW_E_EPOCH_NOT_FOUND, "%s: nothing has been recorded yet",
                       qr_quotez(qr_store_path(store)));
    rc = qr_store_state_at(store, epoch, &state);

    if (rc == 0)
        rc = salvage(context, replay, store, state, &lost);
    if (rc < 0)
        goto out;
    qi_signals_catch();
    qs_stop_when(replay->follow ? NULL : qi_signal_check); /* a follower ends between epochs */
    if (qs_has_tensors(state)) {
        rc = restore_tensors(context, replay, store, state);
        if (rc == 0 && lost > 0)
            rc = QI_DAMAGED;
        goto out;
    }
    qi_progress_begin(&progress, context, "restoring");
    struct qs_restore_options options = {
        .threads = replay->threads,
        .force = replay->force,
        .max_memory = replay->max_memory,
        .progress = show_progress,
        .context = &progress,
        .digest = qr_state_digest(state),
    };
    rc = qs_restore(store, state, replay->output, &options, &result);
    qi_progress_end(&progress);
    hint_at_force(context, replay, rc);
    if (rc == 0)
        rc = replay_say_restored(context, epoch, 0, replay->output, &result);
    if (rc == 0 && lost > 0)
        rc = QI_DAMAGED;
out:
    qr_state_destroy(state);
    return rc;
}

int replay_output(struct qi_context *context, const struct replay *replay, struct qr_store *store)
{
    uint64_t epoch;
    int rc = qi_choose_epoch(context, store, &replay->choice, &epoch);
    return rc < 0 ? rc : replay_restore(context, replay, store, epoch);
}

/* --- one page --- */

int replay_copy_content(struct qr_reader *reader, const struct qr_page *page, int fd,
                        const char *name)
{
    struct qr_content content = {0};
    uint8_t *buffer = qr_malloc(COPY_BUFFER);
    int rc = buffer ? qr_content_init(&content, page)
                    : qr_fail(QALLOW_E_NO_MEMORY, "no memory to read a page");

    for (uint64_t at = 0; rc == 0 && at < page->size;) {
        size_t n = page->size - at < COPY_BUFFER ? (size_t)(page->size - at) : COPY_BUFFER;
        rc = qr_content_read(reader, &content, at, buffer, n);
        if (rc == 0 && fd < 0)
            rc = qi_stdout_write(buffer, n);
        else if (rc == 0 && qs_write_all(fd, buffer, n, at) < 0)
            rc = qr_fail_errno(errno, "%s", name);
        at += n;
    }
    qr_content_finish(&content);
    qr_free(buffer);
    return rc;
}

static int check_file_target(const char *path, int force)
{
    struct stat st;
    if (lstat(path, &st) != 0)
        return 0;
    if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
        return qr_fail(QALLOW_E_CANNOT_CREATE, "%s is no regular file; --output - writes to "
                       "standard output", qr_quotez(path));
    return force ? 0
                 : qr_fail(QALLOW_E_CANNOT_CREATE, "%s exists already; --force replaces it",
                           qr_quotez(path));
}

/* Into a file beside PATH that gets its name only when it is whole. */
static int write_file(struct qr_reader *reader, const struct qr_page *page, const char *path,
                      int force)
{
    struct qs_target target = QS_NO_TARGET;
    int rc = check_file_target(path, force);
    if (rc == 0)
        rc = qs_target_open(&target, path);
    if (rc == 0)
        rc = qs_target_make(&target, 0, 0666);
    if (rc == 0)
        rc = replay_copy_content(reader, page, target.temporary_fd, path);
    if (rc == 0 && fsync(target.temporary_fd) != 0)
        rc = qr_fail_errno(errno, "%s", qr_quotez(path));
    if (rc == 0)
        rc = qs_target_put(&target);
    qs_target_close(&target);
    return rc;
}

static int check_has_bytes(const struct qr_page *page, const char *name, uint64_t epoch)
{
    if (!page)
        return qr_fail(QALLOW_E_PAGE_NOT_FOUND, "no page %s in epoch %llu; --log-of says when "
                       "there was one", qr_quotez(name), (unsigned long long)epoch);
    if (page->kind == QR_KIND_DIRECTORY)
        return qr_fail(QALLOW_E_PAGE_NOT_FOUND, "%s is a directory: it has no bytes of its own",
                       qr_quotez(name));
    return 0;
}

int replay_page(struct qi_context *context, const struct replay *replay, struct qr_store *store)
{
    struct qr_state *state = NULL;
    struct qr_reader *reader = NULL;
    uint64_t epoch;
    int to_stdout = !replay->output || strcmp(replay->output, "-") == 0;
    int rc = qi_choose_epoch(context, store, &replay->choice, &epoch);

    if (rc == 0 && context->json && to_stdout)
        return qi_usage(context, "--output FILE beside --json: bytes are no JSON");
    if (rc == 0)
        rc = qr_store_state_at(store, epoch, &state);
    if (rc < 0)
        return rc;
    const struct qr_page *page = qr_query_lookup(state, replay->page);
    rc = check_has_bytes(page, replay->page, epoch);
    if (rc == 0)
        rc = qr_reader_create(store, 4 << 20, &reader);
    if (rc == 0)
        rc = to_stdout ? replay_copy_content(reader, page, -1, "stdout")
                       : write_file(reader, page, replay->output, replay->force);
    if (rc == 0 && context->json) {
        cJSON *object = qi_json_begin(context);
        qi_json_u64(object, "epoch", epoch);
        qi_json_path(object, "name", replay->page, strlen(replay->page));
        qi_json_path(object, "target", replay->output, strlen(replay->output));
        qi_json_u64(object, "bytes", page->size);
        rc = qi_json_end(object);
    }
    qr_reader_destroy(reader);
    qr_state_destroy(state);
    return rc;
}
