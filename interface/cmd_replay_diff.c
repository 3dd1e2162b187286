/* SPDX-License-Identifier: Apache-2.0 */
/* `qallow replay --diff`, `--log-of` and `--blame`: what changed, when. */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "interface/cmd_replay.h"
#include "runtime/query.h"

enum { GAP = 8 };

extern char **environ;

/* --- words --- */

static const char *kind_word(unsigned kind)
{
    static const char *const words[] = {"?",       "raw",    "file",  "directory",
                                        "symlink", "config", "tensor"};
    return words[kind < sizeof words / sizeof *words ? kind : 0];
}

static cJSON *json_flags(unsigned flags)
{
    static const char *const words[] = {"content", "mode", "mtime", "extra", "name"};
    cJSON *array = cJSON_CreateArray();
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
        if (flags & 1u << i)
            cJSON_AddItemToArray(array, cJSON_CreateString(words[i]));
    return array;
}

/* --- diff --- */

struct diff {
    const struct qi_context *context;
    const struct replay *replay;
    struct qr_reader *reader;
    cJSON *ranges;                      /* --json: of the page at hand */
    uint64_t count, removed, added;     /* of the page at hand: ranges and bytes */
    uint64_t pages, all_removed, all_added;
    char directory[64];                 /* --patch: for the two files */
};

static int show_range(void *context, const struct qr_change *change)
{
    struct diff *d = context;

    d->count++;
    d->removed += change->old_length;
    d->added += change->new_length;
    if (d->ranges) {
        cJSON *range = cJSON_CreateObject();
        qi_json_u64(range, "old_offset", change->old_offset);
        qi_json_u64(range, "old_length", change->old_length);
        qi_json_u64(range, "new_offset", change->new_offset);
        qi_json_u64(range, "new_length", change->new_length);
        cJSON_AddItemToArray(d->ranges, range);
        return 0;
    }
    if (d->replay->stat)
        return 0;
    printf("    %llu+%llu -> %llu+%llu\n", (unsigned long long)change->old_offset,
           (unsigned long long)change->old_length, (unsigned long long)change->new_offset,
           (unsigned long long)change->new_length);
    return qi_stdout_check();
}

static int each_range(struct diff *d, const struct qr_difference *x)
{
    struct qr_content a = {0}, b = {0};
    int rc = 0;

    d->count = d->removed = d->added = 0;
    if (x->a && x->b && x->a->kind == x->b->kind) {
        if (!(x->flags & QR_DIFF_CONTENT))
            return 0;
        rc = qr_content_init(&a, x->a);
        if (rc == 0)
            rc = qr_content_init(&b, x->b);
        if (rc == 0)
            rc = qr_content_diff(d->reader, &a, &b, GAP, show_range, d);
        qr_content_finish(&a);
        qr_content_finish(&b);
    } else {
        struct qr_change whole = {.old_length = x->a ? x->a->size : 0,
                                  .new_length = x->b ? x->b->size : 0};
        if (whole.old_length + whole.new_length > 0)
            rc = show_range(d, &whole);
    }
    d->all_removed += d->removed;
    d->all_added += d->added;
    return rc;
}

static void print_names(const struct qr_difference *x)
{
    printf("%c ", x->status);
    if (x->status == 'R') {
        qi_print_name(stdout, x->old_name, x->old_name_length);
        fputs(" -> ", stdout);
    }
    qi_print_name(stdout, x->name, x->name_length);
}

static void print_attributes(const struct qr_difference *x)
{
    char before[QI_TEXT_MAX], after[QI_TEXT_MAX];

    if (x->status == 'T')
        printf("    %s -> %s\n", kind_word(x->a->kind), kind_word(x->b->kind));
    if (x->flags & QR_DIFF_MODE)
        printf("    mode %04o -> %04o\n", x->a->mode, x->b->mode);
    if (x->flags & QR_DIFF_MTIME)
        printf("    mtime %s -> %s\n", qi_format_time(x->a->mtime_ns, before),
               qi_format_time(x->b->mtime_ns, after));
    if (x->flags & QR_DIFF_EXTRA)
        printf("    attributes differ\n");
}

static int diff_text(struct diff *d, const struct qr_difference *x)
{
    int rc;

    print_names(x);
    if (!d->replay->stat) {
        putchar('\n');
        print_attributes(x);
        return each_range(d, x);
    }
    rc = each_range(d, x);
    printf(" | %llu ranges, -%llu +%llu bytes\n", (unsigned long long)d->count,
           (unsigned long long)d->removed, (unsigned long long)d->added);
    return rc;
}

static int diff_json(struct diff *d, const struct qr_difference *x)
{
    cJSON *object = qi_json_begin(d->context), *ranges = cJSON_CreateArray();
    char status[2] = {x->status, '\0'};
    int rc;

    cJSON_AddStringToObject(object, "status", status);
    qi_json_path(object, "name", x->name, x->name_length);
    if (x->status == 'R')
        qi_json_path(object, "old_name", x->old_name, x->old_name_length);
    cJSON_AddItemToObject(object, "changed", json_flags(x->flags));
    cJSON_AddStringToObject(object, "kind", kind_word(x->b ? x->b->kind : x->a->kind));
    if (x->a)
        qi_json_u64(object, "old_size", x->a->size);
    if (x->b)
        qi_json_u64(object, "new_size", x->b->size);
    d->ranges = ranges;
    rc = each_range(d, x);
    d->ranges = NULL;
    if (d->replay->stat) {
        qi_json_u64(object, "ranges", d->count);
        qi_json_u64(object, "removed_bytes", d->removed);
        qi_json_u64(object, "added_bytes", d->added);
        cJSON_Delete(ranges);
    } else {
        cJSON_AddItemToObject(object, "ranges", ranges);
    }
    if (rc < 0) {
        cJSON_Delete(object);
        return rc;
    }
    return qi_json_end(object);
}

/* --- patch --- */

/* The content in a file of its own; a page that is not there has none. */
static int spill(struct diff *d, const struct qr_page *page, const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0)
        return qr_fail_errno(errno, "%s", path);
    int rc = page ? replay_copy_content(d->reader, page, fd, path) : 0;
    if (close(fd) != 0 && rc == 0)
        rc = qr_fail_errno(errno, "%s", path);
    return rc;
}

/* Runs diff -u; its output is ours. */
static int run_diff(const char *a_label, const char *b_label, const char *a, const char *b)
{
    const char *argv[] = {"diff", "-u", "--label", a_label, "--label", b_label, "--", a, b, NULL};
    pid_t pid;
    int status, error;

    if ((status = qi_stdout_flush()) < 0)
        return status;
    error = posix_spawnp(&pid, "diff", NULL, NULL, (char *const *)(uintptr_t)argv, environ);
    if (error != 0)
        return error == ENOENT
                   ? qr_fail(QALLOW_E_UNAVAILABLE, "--patch needs the program diff (diffutils)")
                   : qr_fail_errno(error, "starting diff");
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return qr_fail_errno(errno, "waiting for diff");
    /* 0 equal, 1 differs; 2 after "Binary files differ", which it has printed */
    if (WIFEXITED(status) && WEXITSTATUS(status) <= 2)
        return 0;
    return qr_fail(QALLOW_E_IO, "diff ended with status %d", status);
}

static int label(char **text, const char *side, const char *name, size_t length, int exists)
{
    size_t size = 0;
    FILE *out = open_memstream(text, &size);

    if (!out)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a patch");
    if (exists) {
        fputs(side, out);
        qi_print_name(out, name, length);
    } else {
        fputs("/dev/null", out);
    }
    return fclose(out) == 0 ? 0 : qr_fail(QALLOW_E_NO_MEMORY, "no memory for a patch");
}

static int has_bytes(const struct qr_page *page)
{
    return page && page->kind != QR_KIND_DIRECTORY;
}

static int diff_patch(struct diff *d, const struct qr_difference *x)
{
    char a[sizeof d->directory + 4], b[sizeof d->directory + 4];
    char *a_label = NULL, *b_label = NULL;
    int rc;

    print_names(x);
    putchar('\n');
    print_attributes(x);
    if ((x->a && x->b && !(x->flags & QR_DIFF_CONTENT) && x->status != 'T') ||
        (!has_bytes(x->a) && !has_bytes(x->b)))
        return qi_stdout_check();
    snprintf(a, sizeof a, "%s/a", d->directory);
    snprintf(b, sizeof b, "%s/b", d->directory);
    rc = spill(d, has_bytes(x->a) ? x->a : NULL, a);
    if (rc == 0)
        rc = spill(d, has_bytes(x->b) ? x->b : NULL, b);
    if (rc == 0)
        rc = label(&a_label, "a/", x->old_name, x->old_name_length, has_bytes(x->a));
    if (rc == 0)
        rc = label(&b_label, "b/", x->name, x->name_length, has_bytes(x->b));
    if (rc == 0)
        rc = run_diff(a_label, b_label, a, b);
    unlink(a);
    unlink(b);
    free(a_label);
    free(b_label);
    return rc;
}

static int show_difference(void *context, const struct qr_difference *difference)
{
    struct diff *d = context;

    if ((difference->b ? difference->b : difference->a)->kind == QR_KIND_CONFIG)
        return 0; /* Qallow's own, no part of the tree */
    d->pages++;
    if (d->context->json)
        return diff_json(d, difference);
    return d->replay->patch ? diff_patch(d, difference) : diff_text(d, difference);
}

static int make_directory(struct diff *d)
{
    const char *base = getenv("TMPDIR");
    int n = snprintf(d->directory, sizeof d->directory, "%s/qallow-patch-XXXXXX",
                     base && *base ? base : "/tmp");
    if (n >= (int)sizeof d->directory)
        snprintf(d->directory, sizeof d->directory, "/tmp/qallow-patch-XXXXXX");
    return mkdtemp(d->directory) ? 0 : qr_fail_errno(errno, "%s", d->directory);
}

int replay_diff(struct qi_context *context, const struct replay *replay, struct qr_store *store)
{
    struct diff d = {.context = context, .replay = replay};
    struct qr_state *a = NULL, *b = NULL;
    const char *dots = strstr(replay->diff, "..");
    uint64_t from = 0, to = 0;
    int rc = dots == replay->diff ? 0 /* "..B": since the empty state */
                                  : qi_epoch_of_word(store, replay->diff,
                                                     (size_t)(dots - replay->diff), &from);

    if (rc == 0)
        rc = qi_epoch_of_word(store, dots + 2, strlen(dots + 2), &to);
    if (rc == 0)
        rc = qr_store_state_at(store, from, &a);
    if (rc == 0)
        rc = qr_store_state_at(store, to, &b);
    if (rc == 0)
        rc = qr_reader_create(store, 4 << 20, &d.reader);
    if (rc == 0 && replay->patch)
        rc = make_directory(&d);
    if (rc == 0)
        rc = qr_diff_states(d.reader, a, b, show_difference, &d);
    if (rc == 0 && replay->stat && !context->json && d.pages > 0)
        printf("%llu pages differ, -%llu +%llu bytes\n", (unsigned long long)d.pages,
               (unsigned long long)d.all_removed, (unsigned long long)d.all_added);
    if (d.directory[0])
        rmdir(d.directory);
    qr_reader_destroy(d.reader);
    qr_state_destroy(a);
    qr_state_destroy(b);
    return rc == 0 && d.pages > 0 ? QI_DIFFERS : rc;
}

/* --- log of a name --- */

static int show_event(void *context, const struct qr_event *e)
{
    struct qi_context *c = context;
    char time[QI_TEXT_MAX], status[2] = {e->status, '\0'};

    if (c->json) {
        cJSON *object = qi_json_begin(c);
        qi_json_u64(object, "epoch", e->epoch);
        qi_json_time(object, "time", e->time_ns);
        cJSON_AddStringToObject(object, "status", status);
        qi_json_path(object, "name", e->name, strlen(e->name));
        if (e->status == 'R')
            qi_json_path(object, "old_name", e->old_name, strlen(e->old_name));
        cJSON_AddItemToObject(object, "changed", json_flags(e->flags));
        qi_json_u64(object, "old_size", e->old_size);
        qi_json_u64(object, "new_size", e->new_size);
        return qi_json_end(object);
    }
    printf("%8llu  %s  %c ", (unsigned long long)e->epoch, qi_format_time(e->time_ns, time),
           e->status);
    if (e->status == 'R') {
        qi_print_name(stdout, e->old_name, strlen(e->old_name));
        fputs(" -> ", stdout);
    }
    qi_print_name(stdout, e->name, strlen(e->name));
    if (e->flags & QR_DIFF_CONTENT)
        printf("  %llu -> %llu bytes", (unsigned long long)e->old_size,
               (unsigned long long)e->new_size);
    else if (e->status == 'A')
        printf("  %llu bytes", (unsigned long long)e->new_size);
    if (e->flags & QR_DIFF_MODE)
        fputs("  mode", stdout);
    if (e->flags & QR_DIFF_MTIME)
        fputs("  mtime", stdout);
    putchar('\n');
    return qi_stdout_check();
}

int replay_log_of(struct qi_context *context, const struct replay *replay, struct qr_store *store)
{
    uint64_t epoch, page;
    int rc = qi_choose_epoch(context, store, &replay->choice, &epoch);

    if (rc == 0)
        rc = qr_query_find(store, replay->log_of, &epoch, &page);
    return rc < 0 ? rc : qr_history_of(store, page, show_event, context);
}

/* --- blame --- */

struct blame {
    const struct qi_context *context;
    struct qr_store *store;
};

static int show_blame(void *context, const struct qr_blame *run)
{
    const struct blame *b = context;
    struct qr_epoch epoch;
    char time[QI_TEXT_MAX];
    int rc = qr_store_epoch(b->store, run->epoch, &epoch);

    if (rc < 0)
        return rc;
    if (b->context->json) {
        cJSON *object = qi_json_begin(b->context);
        qi_json_u64(object, "offset", run->offset);
        qi_json_u64(object, "length", run->length);
        qi_json_u64(object, "epoch", run->epoch);
        qi_json_time(object, "time", epoch.time_ns);
        cJSON_AddBoolToObject(object, "or_earlier", run->or_earlier);
        return qi_json_end(object);
    }
    printf("%12llu+%-10llu %8llu  %s%s\n", (unsigned long long)run->offset,
           (unsigned long long)run->length, (unsigned long long)run->epoch,
           qi_format_time(epoch.time_ns, time), run->or_earlier ? "  or earlier" : "");
    return qi_stdout_check();
}

/* "NAME", "NAME:OFFSET" or "NAME:OFFSET+LEN"; the last colon that is followed by a range counts, so
 * names may contain colons. Returns the length of the name; *whole: there was no range. */
static size_t split_range(const char *text, uint64_t *offset, uint64_t *length, int *whole)
{
    const char *colon = strrchr(text, ':'), *plus;
    char number[24];

    *offset = 0;
    *length = 1;
    *whole = 1;
    if (!colon || colon[1] == '\0' || colon[1 + strspn(colon + 1, "0123456789+")] != '\0')
        return strlen(text);
    *whole = 0;
    plus = strchr(colon, '+');
    size_t n = plus ? (size_t)(plus - colon - 1) : strlen(colon + 1);
    if (n == 0 || n >= sizeof number)
        return 0;
    memcpy(number, colon + 1, n);
    number[n] = '\0';
    if (qi_parse_number(number, offset) || (plus && qi_parse_number(plus + 1, length)))
        return 0;
    return (size_t)(colon - text);
}

int replay_blame(struct qi_context *context, const struct replay *replay, struct qr_store *store)
{
    struct blame b = {context, store};
    struct qr_state *state = NULL;
    uint64_t epoch, offset, length, id = 0;
    int rc, whole;
    size_t name_length = split_range(replay->blame, &offset, &length, &whole);

    if (name_length == 0)
        return qi_usage(context, "--blame NAME, NAME:OFFSET or NAME:OFFSET+LEN");
    char *name = strndup(replay->blame, name_length);
    if (!name)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a name");
    rc = qi_choose_epoch(context, store, &replay->choice, &epoch);
    if (rc == 0)
        rc = qr_store_state_at(store, epoch, &state);
    if (rc == 0) {
        const struct qr_page *page = qr_query_lookup(state, name);
        if (!page)
            rc = qr_fail(QALLOW_E_PAGE_NOT_FOUND, "no page %s in epoch %llu", qr_quotez(name),
                         (unsigned long long)epoch);
        else if (whole)
            length = page->size;
        id = page ? page->id : 0;
    }
    qr_state_destroy(state);
    if (rc == 0)
        rc = qr_blame(store, epoch, id, offset, length, show_blame, &b);
    free(name);
    return rc;
}
