/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A *mirror* of a tree: what was seen by looking only at what somebody pointed to, a path and, if
 * it is a directory, its direct entries.
 */
#ifndef QALLOW_TESTS_MIRROR_H
#define QALLOW_TESTS_MIRROR_H

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct seen {
    char *path;
    struct stat st;
};

struct mirror {
    struct seen *items;
    size_t count, capacity;
};

static struct seen *find(struct mirror *m, const char *path)
{
    for (size_t i = 0; i < m->count; i++)
        if (strcmp(m->items[i].path, path) == 0)
            return &m->items[i];
    return NULL;
}

static void forget_below(struct mirror *m, const char *path, int itself)
{
    size_t kept = 0, length = strlen(path);
    for (size_t i = 0; i < m->count; i++) {
        const char *p = m->items[i].path;
        int below = strcmp(path, ".") == 0 || (strncmp(p, path, length) == 0 && p[length] == '/');
        if (below || (itself && strcmp(p, path) == 0))
            free(m->items[i].path);
        else
            m->items[kept++] = m->items[i];
    }
    m->count = kept;
}

static void put(struct mirror *m, const char *path, const struct stat *st)
{
    struct seen *item = find(m, path);
    if (!item) {
        if (m->count == m->capacity) {
            m->capacity = m->capacity ? m->capacity * 2 : 64;
            m->items = realloc(m->items, m->capacity * sizeof *m->items);
            assert_non_null(m->items);
        }
        item = &m->items[m->count++];
        item->path = strdup(path);
    }
    item->st = *st;
}

static void clear(struct mirror *m)
{
    forget_below(m, ".", 1);
    free(m->items);
    *m = (struct mirror){0};
}

static void join(char *out, const char *directory, const char *name)
{
    if (strcmp(directory, ".") == 0)
        snprintf(out, PATH_MAX, "%s", name);
    else
        snprintf(out, PATH_MAX, "%s/%s", directory, name);
}

static int is_child_of(const char *path, const char *directory)
{
    const char *slash = strrchr(path, '/');
    if (strcmp(directory, ".") == 0)
        return !slash;
    return slash && (size_t)(slash - path) == strlen(directory) &&
           strncmp(path, directory, strlen(directory)) == 0;
}

/* The directories above a path are known as well: one that was not there a moment ago may be now,
 * under a writer, and if it goes again, what was found in it has to go with it. */
static int know_way_to(struct mirror *m, int root, const char *path)
{
    char above[PATH_MAX];
    struct stat st;
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(above, sizeof above, "%.*s", (int)(slash - path), path);
        if (find(m, above))
            continue;
        if (fstatat(root, above, &st, AT_SYMLINK_NOFOLLOW) < 0)
            return -1;
        put(m, above, &st);
    }
    return 0;
}

/* Looks at one path; at a directory's direct entries too; below those only if `deep`. */
static void look(struct mirror *m, int root, const char *path, int deep)
{
    struct stat st;
    char child[PATH_MAX];
    if (know_way_to(m, root, path) < 0 || fstatat(root, path, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        forget_below(m, path, 1);
        return;
    }
    if (strcmp(path, ".") != 0)
        put(m, path, &st);
    if (!S_ISDIR(st.st_mode)) {
        forget_below(m, path, 0);
        return;
    }
    int fd = openat(root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (!stream)
        return;
    for (size_t i = 0; i < m->count;) { /* entries that have vanished */
        struct stat gone;
        if (is_child_of(m->items[i].path, path) &&
            fstatat(root, m->items[i].path, &gone, AT_SYMLINK_NOFOLLOW) < 0) {
            char *copy = strdup(m->items[i].path);
            forget_below(m, copy, 1);
            free(copy);
            i = 0;
        } else {
            i++;
        }
    }
    for (const struct dirent *e; (e = readdir(stream));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        join(child, path, e->d_name);
        if (fstatat(root, child, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        put(m, child, &st);
        if (!S_ISDIR(st.st_mode))
            forget_below(m, child, 0);
        else if (deep)
            look(m, root, child, 1);
    }
    closedir(stream);
}

static int same(const struct stat *a, const struct stat *b)
{
    if (a->st_ino != b->st_ino || a->st_mode != b->st_mode)
        return 0;
    return S_ISDIR(a->st_mode) || /* a directory's own time makes no epoch */
           (a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
            a->st_mtim.tv_nsec == b->st_mtim.tv_nsec);
}

static void assert_mirrors(struct mirror *m, int root)
{
    struct mirror truth = {0};
    look(&truth, root, ".", 1);
    for (size_t i = 0; i < truth.count; i++) {
        const struct seen *mine = find(m, truth.items[i].path);
        if (!mine || !same(&mine->st, &truth.items[i].st))
            fail_msg("%s: %s", truth.items[i].path, mine ? "out of date" : "missed");
    }
    for (size_t i = 0; i < m->count; i++)
        if (!find(&truth, m->items[i].path))
            fail_msg("%s: still there for the watcher", m->items[i].path);
    clear(&truth);
}

#endif
