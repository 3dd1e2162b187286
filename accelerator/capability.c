/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of all probes, and the check before a keeper starts, which is some of them and what
 * follows from each: going on with less, which is said, or refusing.
 *
 * What a start costs is small: no probe of the check reads the tree or waits for a disk. That the
 * tree has more directories than there are watches is said by the watcher, which knows the exact
 * number after its first look; the doctor counts them for itself.
 */
#include "accelerator/capability.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "accelerator/capability_internal.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "sources/path.h"

void qa_found(struct qa_capability *found, enum qa_verdict verdict, int result, const char *remedy,
              const char *format, ...)
{
    struct qa_capability new = {.name = found->name, .verdict = verdict, .result = result};
    va_list arguments;
    va_start(arguments, format); /* which may be of *found */
    vsnprintf(new.text, sizeof new.text, format, arguments);
    va_end(arguments);
    if (remedy && verdict != QA_PASS)
        snprintf(new.remedy, sizeof new.remedy, "%s", remedy);
    *found = new;
}

const char *qa_capability_line(const struct qa_capability *found, char line[QA_CAPABILITY_LINE])
{
    snprintf(line, QA_CAPABILITY_LINE, "%s%s%s", found->text, *found->remedy ? "; " : "",
             found->remedy);
    return line;
}

const char *qa_size_text(uint64_t bytes, char text[QA_SIZE_TEXT])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 1023.95 && unit < sizeof units / sizeof *units - 1; unit++)
        value /= 1024;
    snprintf(text, QA_SIZE_TEXT, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return text;
}

/* --- all probes --- */

struct place {
    int root_fd; /* "/" if there is no root */
    const char *root;
    struct qa_tree_size size;
    struct qa_inotify_use use;
    const char *log_directory;
};

static void tree_file_system(const struct place *place, struct qa_capability *found)
{
    qa_probe_file_system(qa_inotify_kernel(), place->root_fd, place->root, found);
}

static void inotify(const struct place *place, struct qa_capability *found)
{
    qa_probe_inotify(qa_inotify_kernel(), place->root_fd, found);
}

static void inotify_instances(const struct place *place, struct qa_capability *found)
{
    qa_probe_inotify_instances(&place->use, found);
}

static void inotify_watches(const struct place *place, struct qa_capability *found)
{
    qa_probe_inotify_watches(&place->use, place->size.directories, found);
}

static void inotify_queue(const struct place *place, struct qa_capability *found)
{
    qa_probe_inotify_queue(found);
}

/* At most 200 bytes a file beyond its path, and what a small cache takes. */
static void cache(const struct place *place, struct qa_capability *found)
{
    int elsewhere;
    qa_probe_cache((1 << 18) + place->size.files * 200 + place->size.path_bytes, found, &elsewhere);
}

static void log_file_system(const struct place *place, struct qa_capability *found)
{
    qa_probe_log_file_system(qa_inotify_kernel(), place->log_directory, found);
}

static void log_space(const struct place *place, struct qa_capability *found)
{
    qa_probe_log_space(place->log_directory, found);
}

static void log_write(const struct place *place, struct qa_capability *found)
{
    qa_probe_log_write(place->log_directory, found);
}

static void log_sync(const struct place *place, struct qa_capability *found)
{
    qa_probe_log_sync(place->log_directory, found);
}

static void log_punch(const struct place *place, struct qa_capability *found)
{
    qa_probe_log_punch(place->log_directory, found);
}

static void userfaultfd(const struct place *place, struct qa_capability *found)
{
    qa_probe_userfaultfd(found);
}

static void pagemap_scan(const struct place *place, struct qa_capability *found)
{
    qa_probe_pagemap_scan(found);
}

static void cpu(const struct place *place, struct qa_capability *found)
{
    qa_probe_cpu(qb_kernels(), found);
}

static void cuda(const struct place *place, struct qa_capability *found) { qa_probe_cuda(found); }

static const struct {
    const char *name;
    int of_tree;
    void (*probe)(const struct place *place, struct qa_capability *found);
} probes[] = {
    {"tree: file system", 1, tree_file_system},
    {"inotify", 0, inotify},
    {"inotify instances", 0, inotify_instances},
    {"inotify watches", 0, inotify_watches},
    {"inotify queue", 0, inotify_queue},
    {"cache: memory", 0, cache},
    {"log: file system", 0, log_file_system},
    {"log: free space", 0, log_space},
    {"log: write", 0, log_write},
    {"log: sync", 0, log_sync},
    {"log: punch holes", 0, log_punch},
    {"cpu", 0, cpu},
    {"cuda", 0, cuda},
    {"userfaultfd", 0, userfaultfd},
    {"pagemap scan", 0, pagemap_scan},
};

int qa_capabilities_probe(const char *root, const char *log_directory,
                          void (*found)(void *context, const struct qa_capability *capability),
                          void *context)
{
    struct place place = {.root = root, .log_directory = log_directory};
    place.root_fd = open(root ? root : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (place.root_fd < 0)
        return qr_fail_errno(errno, "%s", root ? qr_quotez(root) : "/");
    qa_inotify_use(&place.use);
    int result = root ? qa_tree_size(place.root_fd, &place.size) : 0;
    for (size_t i = 0; i < sizeof probes / sizeof *probes && result == 0; i++) {
        struct qa_capability capability = {.name = probes[i].name};
        if (probes[i].of_tree && !root)
            continue;
        probes[i].probe(&place, &capability);
        found(context, &capability);
    }
    close(place.root_fd);
    return result;
}

/* --- before a start --- */

struct check {
    const struct qa_capability_request *request;
    const struct qa_inotify *inotify;
    void (*notice)(void *context, const char *line);
    void *context;
};

static void say(const struct check *check, const struct qa_capability *found)
{
    char line[QA_CAPABILITY_LINE];
    if (check->notice)
        check->notice(check->context, qa_capability_line(found, line));
}

static int refuse(const struct qa_capability *found)
{
    char line[QA_CAPABILITY_LINE];
    return qr_fail(found->result, "%s", qa_capability_line(found, line));
}

static int check_events(const struct check *check, int root_fd)
{
    const struct qa_capability_request *request = check->request;
    struct qa_capability found;
    int poll = 0;
    qa_probe_file_system(check->inotify, root_fd, request->root, &found);
    if (found.result < 0) { /* events would not tell everything */
        if (request->events == QA_NEEDED)
            snprintf(found.remedy, sizeof found.remedy, "such changes will be missed");
        poll = request->events == QA_WANTED;
        say(check, &found);
    }
    if (request->events == QA_NEEDED) {
        qa_probe_inotify(check->inotify, root_fd, &found);
        return found.verdict == QA_PASS ? 0 : refuse(&found);
    }
    if (!poll) {
        int instance = qa_open_inotify(check->inotify, &found);
        if (instance >= 0)
            close(instance);
        poll = instance < 0;
        if (poll)
            say(check, &found);
    }
    if (request->poll)
        *request->poll |= poll;
    return 0;
}

static int check_cache(const struct check *check)
{
    const struct qa_capability_request *request = check->request;
    struct qa_capability found;
    int elsewhere;
    qa_probe_cache(request->cache_bytes, &found, &elsewhere);
    if (found.verdict == QA_FAIL && request->cache == QA_NEEDED)
        return refuse(&found);
    if (found.verdict == QA_FAIL && request->no_cache)
        *request->no_cache = 1;
    if (found.result < 0 && !elsewhere) /* where it is then says who opens it */
        say(check, &found);
    return 0;
}

static int check_cpu(void)
{
    struct qa_capability found;
    qa_probe_cpu(qb_kernels(), &found);
    return found.verdict == QA_FAIL ? refuse(&found) : 0;
}

/* Only what its opening does not find out. */
static void check_log(const struct check *check)
{
    struct qa_capability found;
    const char *slash = strrchr(check->request->log, '/');
    char *directory = qs_path_join("", check->request->log);
    if (!directory)
        return;
    if (slash)
        directory[slash == check->request->log ? 1 : slash - check->request->log] = '\0';
    qa_probe_log_file_system(check->inotify, slash ? directory : ".", &found);
    if (found.result < 0 && found.verdict == QA_WARN)
        say(check, &found);
    qr_free(directory);
}

int qa_capabilities_check(const struct qa_capability_request *request,
                          void (*notice)(void *context, const char *line), void *context)
{
    const struct check check = {
        .request = request,
        .inotify = request->inotify ? request->inotify : qa_inotify_kernel(),
        .notice = notice,
        .context = context,
    };
    int result = 0;
    int root_fd = request->events == QA_NOT_WANTED
                      ? -1
                      : open(request->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root_fd >= 0) {
        result = check_events(&check, root_fd);
        close(root_fd);
    }
    if (result == 0 && request->cache != QA_NOT_WANTED)
        result = check_cache(&check);
    if (result == 0)
        result = check_cpu();
    if (result == 0 && request->log)
        check_log(&check);
    return result;
}
