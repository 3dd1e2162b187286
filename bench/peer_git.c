/* SPDX-License-Identifier: Apache-2.0 */
/*
 * git: a file of 1 MB in many versions, each with 64 bytes changed. Qallow and `git fast-import`
 * are handed each version whole; then single versions are had back, from git through one
 * `cat-file --batch` that stays open. The file looks like base64, which both may compress or not as
 * they do by default.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/peer.h"
#include "bench/process.h"
#include "bench/store.h"
#include "runtime/os.h"

enum { FILE_BYTES = 1000000, EDIT = 64, OBJECT_NAME = 40 };

struct git {
    char program[1024];
    uint64_t versions, seed, page;
    char *file, *back; /* the present version; one that was had back */
    char (*objects)[OBJECT_NAME + 1];
    struct qallow_store *store;
    struct qm_process batch;
};

static int find(char *text, size_t size)
{
    char path[1024];
    if (!qm_find_program("git", path, sizeof path)) {
        snprintf(text, size, "there is no git");
        return 0;
    }
    snprintf(text, size, "%s", path);
    return 1;
}

const struct qm_peer qm_git = {"git", "git", find};

static void fill_letters(struct git *g, char *to, size_t length)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < length; i++)
        to[i] = letters[qm_random(&g->seed) % 64];
}

static void next_version(struct git *g)
{
    fill_letters(g, g->file + qm_random(&g->seed) % (FILE_BYTES - EDIT), EDIT);
}

static int setup(struct qm_context *context)
{
    struct git *g = context->state = qr_calloc(1, sizeof *g);
    if (!g)
        return qm_no_memory();
    g->versions = context->size;
    g->seed = 1;
    g->file = qr_malloc(FILE_BYTES);
    g->back = qr_malloc(FILE_BYTES);
    g->objects = qr_calloc(g->versions, sizeof *g->objects);
    if (!g->file || !g->back || !g->objects)
        return qm_no_memory();
    fill_letters(g, g->file, FILE_BYTES);
    if (!qm_find_program("git", g->program, sizeof g->program))
        return qr_fail(QALLOW_E_UNAVAILABLE, "there is no git");
    return 0;
}

static void finish(struct qm_context *context)
{
    struct git *g = context->state;
    if (!g)
        return;
    qm_process_kill(&g->batch);
    if (g->store)
        qallow_close(g->store);
    qr_free(g->file);
    qr_free(g->back);
    qr_free(g->objects);
    qr_free(g);
}

/* --- recording, Qallow --- */

static int write_version(struct git *g, int first)
{
    struct qallow_page_options options = QALLOW_PAGE_OPTIONS_INIT;
    struct qallow_txn *txn;
    int rc = qallow_begin(g->store, &txn);
    if (rc < 0)
        return rc;
    options.name = "file";
    options.kind = QALLOW_FILE;
    options.mode = 0644;
    if (first)
        rc = qallow_page_create(txn, &options, &g->page);
    rc = rc < 0 ? rc : qallow_page_write(txn, g->page, 0, g->file, FILE_BYTES);
    if (rc == 0)
        return qallow_commit(txn, NULL);
    qallow_abort(txn);
    return rc;
}

/* A new log of all versions, closed and so synced, or left open. */
static int record(struct qm_context *context, struct git *g, int leave_open)
{
    struct qallow_options options = QALLOW_OPTIONS_INIT;
    const char *path = qm_path(context, "git.tlog");
    options.writable = options.create = 1;
    options.sync = QALLOW_SYNC_NONE;
    unlink(path);
    unlink(qm_path(context, "git.tlog-index"));
    int rc = qallow_open(path, &options, &g->store);
    for (uint64_t i = 0; rc == 0 && i < g->versions; i++) {
        rc = qm_stopped(context);
        next_version(g);
        rc = rc < 0 ? rc : write_version(g, i == 0);
    }
    if (rc < 0 || leave_open)
        return rc;
    rc = qallow_close(g->store);
    g->store = NULL;
    return rc;
}

static int run_record(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct git *g = context->state;
    double start = qm_now();
    int rc = record(context, g, 0);
    *sample = (struct qm_sample){qm_now() - start, (double)g->versions};
    return rc;
}

/* --- recording, git --- */

static int run_git(const struct git *g, const char *directory, const char *const *words)
{
    const char *argv[8] = {g->program};
    struct qm_process process;
    for (size_t i = 0; i < 6 && words[i]; i++)
        argv[i + 1] = words[i];
    int rc = qm_process_start(argv, directory, &process);
    return rc < 0 ? rc : qm_process_wait(&process);
}

static int send_version(struct git *g, struct qm_process *import, uint64_t number)
{
    char text[256];
    int n = snprintf(text, sizeof text, "blob\nmark :%llu\ndata %d\n",
                     (unsigned long long)number + 1, FILE_BYTES);
    int rc = qm_process_write(import, text, (size_t)n);
    rc = rc < 0 ? rc : qm_process_write(import, g->file, FILE_BYTES);
    n = snprintf(text, sizeof text,
                 "\ncommit refs/heads/main\ncommitter bench <bench> %llu +0000\ndata 0\n"
                 "M 100644 :%llu file\n\n",
                 (unsigned long long)number + 1000000000, (unsigned long long)number + 1);
    return rc < 0 ? rc : qm_process_write(import, text, (size_t)n);
}

/* A new repository of all versions. */
static int import(struct qm_context *context, struct git *g)
{
    static const char *const init[] = {"init", "-q", "--bare", "repository", NULL};
    const char *const argv[] = {
        g->program, "-C", "repository", "fast-import", "--quiet", "--export-marks=marks", NULL};
    struct qm_process process;
    int rc = qm_remove_tree(qm_path(context, "repository"));
    rc = rc < 0 ? rc : run_git(g, context->directory, init);
    rc = rc < 0 ? rc : qm_process_start(argv, context->directory, &process);
    if (rc < 0)
        return rc;
    for (uint64_t i = 0; rc == 0 && i < g->versions; i++) {
        rc = qm_stopped(context);
        next_version(g);
        rc = rc < 0 ? rc : send_version(g, &process, i);
    }
    if (rc == 0)
        return qm_process_wait(&process);
    qm_process_kill(&process);
    return rc;
}

static int run_import(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct git *g = context->state;
    double start = qm_now();
    int rc = import(context, g);
    *sample = (struct qm_sample){qm_now() - start, (double)g->versions};
    return rc;
}

/* --- having a version back --- */

/* The object names that fast-import wrote down: ":MARK NAME" a line. */
static int read_marks(struct qm_context *context, struct git *g)
{
    char line[128];
    uint64_t found = 0;
    FILE *file = fopen(qm_path(context, "repository/marks"), "r");
    while (file && fgets(line, sizeof line, file)) {
        char *end;
        unsigned long long mark = strtoull(line + 1, &end, 10);
        if (line[0] != ':' || mark < 1 || mark > g->versions || strlen(end) < OBJECT_NAME + 1)
            continue;
        memcpy(g->objects[mark - 1], end + 1, OBJECT_NAME);
        found++;
    }
    if (file)
        fclose(file);
    return found == g->versions
               ? 0
               : qr_fail(QALLOW_E_UNAVAILABLE, "git fast-import named %llu objects",
                         (unsigned long long)found);
}

static int setup_back(struct qm_context *context)
{
    int rc = setup(context);
    struct git *g = context->state;
    const char *const argv[] = {g->program, "-C", "repository", "cat-file", "--batch", NULL};
    rc = rc < 0 ? rc : record(context, g, 1);
    rc = rc < 0 ? rc : import(context, g);
    rc = rc < 0 ? rc : read_marks(context, g);
    return rc < 0 ? rc : qm_process_start(argv, context->directory, &g->batch);
}

static int run_back(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct git *g = context->state;
    struct qallow_view *view;
    double start = qm_now();
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < repeats; i++) {
        rc = qallow_view_at(g->store, 1 + qm_random(&g->seed) % g->versions, &view);
        if (rc < 0)
            return rc;
        rc = qallow_page_read(view, g->page, 0, g->back, FILE_BYTES);
        qallow_view_destroy(view);
    }
    *sample = (struct qm_sample){qm_now() - start, (double)repeats};
    return rc;
}

/* "NAME blob 1000000\n", the bytes, "\n". */
static int cat_file(struct git *g, const char *object)
{
    char header[OBJECT_NAME + 16], line[OBJECT_NAME + 2];
    int n = snprintf(line, sizeof line, "%s\n", object);
    int rc = qm_process_write(&g->batch, line, (size_t)n);
    n = snprintf(header, sizeof header, "%s blob %d\n", object, FILE_BYTES);
    rc = rc < 0 ? rc : qm_process_read(&g->batch, header, (size_t)n);
    rc = rc < 0 ? rc : qm_process_read(&g->batch, g->back, FILE_BYTES);
    return rc < 0 ? rc : qm_process_read(&g->batch, line, 1);
}

static int run_cat_file(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct git *g = context->state;
    double start = qm_now();
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < repeats; i++)
        rc = cat_file(g, g->objects[qm_random(&g->seed) % g->versions]);
    *sample = (struct qm_sample){qm_now() - start, (double)repeats};
    return rc;
}

static const struct qm_work recording = {setup, run_record, run_import, finish};
static const struct qm_work having_back = {setup_back, run_back, run_cat_file, finish};

/* clang-format off */
const struct qm_case qm_git_cases[] = {
    {"peer/git-record", "vs git: record a 1 MB file", "git fast-import",
     "Versions of a file of 1 MB, each with 64 bytes changed and handed over whole, as one epoch "
     "each; beside git fast-import, a commit each. Versions a second.",
     &qm_thousand_s, {QM_RATIO, 20}, &recording, .size = 200, .smoke_size = 20, .fixed = 1,
     .peer = &qm_git},
    {"peer/git-back", "vs git: have version N back", "git cat-file",
     "A random version of a file of 1 MB of 1,000, read whole and verified; beside one git "
     "cat-file --batch that stays open. Versions a second.",
     &qm_thousand_s, {QM_RATIO, 20}, &having_back, .size = 1000, .smoke_size = 20,
     .peer = &qm_git},
    {0},
};
