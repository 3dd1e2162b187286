/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is recorded: the rules of the command line, the ignore files of the directories, and what is
 * never recorded (Qallow's own files and temporary names).
 *
 * An entry is judged with its directory taken for granted; a directory that is left out is never
 * entered, so nothing below it can be taken back. Patterns of the command line come first, then
 * those of the nearest directory, then those of the directories above it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sources/path.h"
#include "sources/tree_internal.h"

enum { IGNORE_FILE_MAX = 1 << 20 }; /* bytes of an ignore file */

static char *duplicate(const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = qr_malloc(n);
    return copy ? memcpy(copy, text, n) : NULL;
}

void qs_rules_finish(struct qs_rules *rules)
{
    for (size_t i = 0; i < rules->exclude_count; i++)
        qr_free(rules->excludes[i]);
    qr_free(rules->excludes);
    rules->excludes = NULL;
    rules->exclude_count = 0;
}

int qs_rules_copy(struct qs_rules *to, const struct qs_rules *from)
{
    *to = *from;
    to->exclude_count = 0;
    to->excludes = from->exclude_count ? qr_calloc(from->exclude_count, sizeof *to->excludes)
                                       : NULL;
    if (from->exclude_count && !to->excludes)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the rules");
    for (size_t i = 0; i < from->exclude_count; i++) {
        to->excludes[i] = duplicate(from->excludes[i]);
        if (!to->excludes[i])
            return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the rules");
        to->exclude_count++;
    }
    return 0;
}

int qs_rules_text(const struct qs_rules *rules, char **text, size_t *length)
{
    size_t size = 128;
    for (size_t i = 0; i < rules->exclude_count; i++)
        size += strlen(rules->excludes[i]) + sizeof "exclude \n";
    if (!(*text = qr_malloc(size)))
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the rules");
    int n = snprintf(*text, size, "include-git %d\nignore-files %d\nmax-file-size %llu\n",
                     !!rules->include_git, !rules->no_ignore_file,
                     (unsigned long long)rules->max_file_size);
    for (size_t i = 0; i < rules->exclude_count; i++)
        n += snprintf(*text + n, size - (size_t)n, "exclude %s\n", rules->excludes[i]);
    *length = (size_t)n;
    return 0;
}

/* --- own files --- */

/* Resolves all but the last component, which need not exist. From qr_malloc, or NULL. */
static char *absolute_path(const char *path)
{
    const char *slash = strrchr(path, '/');
    char directory[PATH_MAX], resolved[PATH_MAX];
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof directory)
        return NULL;
    memcpy(directory, path, n);
    directory[n] = 0;
    if (!realpath(slash ? (n ? directory : "/") : ".", resolved))
        return NULL;
    return qs_path_join(strcmp(resolved, "/") == 0 ? "" : resolved, slash ? slash + 1 : path);
}

int qs_own_files_set(struct qs_tree *tree, const char *const *paths, size_t count)
{
    static const char *const suffixes[] = {"", "-index", ".lock", ".sock", ".bad", ".consumers"};
    enum { SUFFIXES = sizeof suffixes / sizeof *suffixes };
    char root[PATH_MAX], link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", tree->root_fd);
    if (!realpath(link, root) && !realpath(tree->path, root))
        return qr_fail_errno(errno, "%s", qr_quotez(tree->path));
    size_t prefix = strcmp(root, "/") == 0 ? 0 : strlen(root);
    size_t total = count + (tree->store ? SUFFIXES : 0);
    tree->own_files = qr_calloc(total, sizeof *tree->own_files);
    if (!tree->own_files)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the rules");
    for (size_t i = 0; i < total; i++) {
        const char *path = i < count ? paths[i] : qr_store_path(tree->store);
        char *plain = absolute_path(path);
        if (!plain)
            continue; /* its directory does not exist: nor does the file */
        const char *suffix = i < count ? "" : suffixes[i - count];
        size_t size = strlen(plain) + strlen(suffix) + 1;
        struct qs_own_file *own = &tree->own_files[tree->own_file_count];
        own->path = qr_malloc(size);
        if (own->path) {
            snprintf(own->path, size, "%s%s", plain, suffix);
            if (strncmp(own->path, root, prefix) == 0 && own->path[prefix] == '/')
                own->relative = own->path + prefix + 1;
            tree->own_file_count++;
        }
        qr_free(plain);
        if (!own->path)
            return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the rules");
    }
    qs_own_files_look(tree);
    return 0;
}

void qs_own_files_look(struct qs_tree *tree)
{
    for (size_t i = 0; i < tree->own_file_count; i++) {
        struct stat st;
        int known = lstat(tree->own_files[i].path, &st) == 0 && !S_ISDIR(st.st_mode);
        tree->own_files[i].device = known ? st.st_dev : 0;
        tree->own_files[i].inode = known ? st.st_ino : 0;
    }
}

/* A file under another name of one of ours, unless ours has been replaced since it was looked at
 * and the inode is somebody else's by now. */
static int has_our_inode(const struct qs_own_file *own, const struct stat *st)
{
    struct stat now;
    return own->inode && own->inode == st->st_ino && own->device == st->st_dev &&
           lstat(own->path, &now) == 0 && now.st_ino == st->st_ino && now.st_dev == st->st_dev;
}

/* "work.tlog.bad" has followers: "work.tlog.bad.1". */
static int is_own(const struct qs_tree *tree, const char *path, const struct stat *st)
{
    for (size_t i = 0; i < tree->own_file_count; i++) {
        const struct qs_own_file *own = &tree->own_files[i];
        if (st && has_our_inode(own, st))
            return 1;
        size_t n = own->relative ? strlen(own->relative) : 0;
        if (!n || strncmp(path, own->relative, n) != 0)
            continue;
        if (path[n] == 0 || (n > 4 && strcmp(own->relative + n - 4, ".bad") == 0 &&
                             (path[n] == '.' || path[n] == '-') && !strchr(path + n, '/')))
            return 1;
    }
    return 0;
}

/* --- the decision --- */

/* The place of a directory in the sorted list; *found says if it is there. */
static size_t find_directory(const struct qs_tree *tree, const char *path, size_t length,
                             int *found)
{
    size_t low = 0, high = tree->directory_rules_count;
    *found = 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const char *other = tree->directory_rules[middle].path;
        int order = strncmp(other, path, length);
        if (order == 0)
            order = other[length] != 0;
        if (order == 0) {
            *found = 1;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int has_ending(const char *name, const char *ending)
{
    size_t n = strlen(name), e = strlen(ending);
    return n >= e && memcmp(name + n - e, ending, e) == 0;
}

int qs_rules_admit(struct qs_tree *tree, const char *path, int is_directory, const struct stat *st)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    if (has_ending(name, QS_TEMPORARY) || strcmp(name, QS_JOURNAL) == 0 || is_own(tree, path, st))
        return 0;
    int verdict = qs_ignore_match(&tree->excludes, path, is_directory);
    size_t length = slash ? (size_t)(slash - path) : 0;
    while (!verdict && tree->directory_rules_count) {
        int found;
        size_t at = find_directory(tree, path, length, &found);
        if (found)
            verdict = qs_ignore_match(&tree->directory_rules[at].ignore,
                                      path + length + (length != 0), is_directory);
        if (length == 0)
            break;
        while (length > 0 && path[--length] != '/')
            ;
    }
    if (verdict <= 0 && is_directory && !tree->rules.include_git && strcmp(name, ".git") == 0) {
        atomic_store_explicit(&tree->met_git, 1, memory_order_relaxed);
        return 0;
    }
    return verdict <= 0;
}

int qs_tree_met_git(const struct qs_tree *tree)
{
    return atomic_load_explicit(&tree->met_git, memory_order_relaxed);
}

int qs_is_recorded(struct qs_tree *tree, const char *path, int is_directory)
{
    char *copy = duplicate(path);
    if (!copy)
        return 1; /* at worst something is looked at in vain: the capture judges again */
    int recorded = 1;
    for (char *slash = strchr(copy, '/'); slash && recorded; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        recorded = qs_rules_admit(tree, copy, 1, NULL);
        *slash = '/';
    }
    recorded = recorded && qs_rules_admit(tree, copy, is_directory, NULL);
    qr_free(copy);
    return recorded;
}

/* --- ignore files --- */

void qs_rules_drop_directory(struct qs_tree *tree, const char *path)
{
    int found;
    size_t at = find_directory(tree, path, strlen(path), &found);
    if (!found)
        return;
    struct qs_directory_rules *rules = &tree->directory_rules[at];
    qr_free(rules->path);
    qs_ignore_finish(&rules->ignore);
    memmove(rules, rules + 1, (--tree->directory_rules_count - at) * sizeof *rules);
}

/* Reads a small regular file whole; 1 if there is none that can be read. */
static int read_ignore_file(int directory_fd, char **text, size_t *length)
{
    int rc = 1;
    *text = NULL;
    int fd = openat(directory_fd, QS_IGNORE_FILE, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > IGNORE_FILE_MAX)
        goto out;
    if (!(*text = qr_malloc((size_t)st.st_size + 1))) {
        rc = qr_fail(QALLOW_E_NO_MEMORY, "no memory for the rules");
        goto out;
    }
    ssize_t got = pread(fd, *text, (size_t)st.st_size, 0);
    if (got < 0)
        goto out;
    *length = (size_t)got;
    rc = 0;
out:
    if (fd >= 0)
        close(fd);
    return rc;
}

int qs_rules_read_directory(struct qs_tree *tree, const char *path, int fd)
{
    char *text = NULL;
    size_t length = 0;
    int found, rc;
    struct qs_ignore ignore = {0};
    qs_rules_drop_directory(tree, path);
    if (tree->rules.no_ignore_file || (rc = read_ignore_file(fd, &text, &length)) > 0) {
        qr_free(text);
        return 0;
    }
    if (rc == 0)
        rc = qs_ignore_parse(&ignore, text, length);
    qr_free(text);
    if (rc == 0) {
        void *grown = qr_realloc(tree->directory_rules, (tree->directory_rules_count + 1) *
                                                            sizeof *tree->directory_rules);
        char *copy = duplicate(path);
        if (grown)
            tree->directory_rules = grown;
        if (grown && copy) {
            size_t at = find_directory(tree, path, strlen(path), &found);
            struct qs_directory_rules *rules = &tree->directory_rules[at];
            memmove(rules + 1, rules, (tree->directory_rules_count++ - at) * sizeof *rules);
            *rules = (struct qs_directory_rules){copy, ignore};
            return 0;
        }
        qr_free(copy);
        rc = qr_fail(QALLOW_E_NO_MEMORY, "no memory for the rules");
    }
    qs_ignore_finish(&ignore);
    return rc;
}

int qs_rules_enter(struct qs_tree *tree, const char *path, int fd)
{
    return qs_rules_read_directory(tree, path, fd);
}

int qs_rules_are_known(const struct qs_tree *tree, int fd)
{
    return tree->rules.no_ignore_file ||
           (tree->directory_rules_count == 0 && faccessat(fd, QS_IGNORE_FILE, F_OK, 0) < 0);
}

int qs_rules_reload(struct qs_tree *tree)
{
    int rc = 0;
    size_t count = tree->directory_rules_count;
    char **paths = qr_calloc(count + 1, sizeof *paths);
    if (!paths)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the rules");
    for (size_t i = 0; i < count && rc == 0; i++)
        if (!(paths[i] = duplicate(tree->directory_rules[i].path)))
            rc = qr_fail(QALLOW_E_NO_MEMORY, "no memory for the rules");
    for (size_t i = 0; i < count && rc == 0; i++) {
        int fd = qs_open_beneath(tree->root_fd, paths[i], O_RDONLY | O_DIRECTORY, 0);
        if (fd >= 0) {
            rc = qs_rules_read_directory(tree, paths[i], fd);
            close(fd);
        } else {
            qs_rules_drop_directory(tree, paths[i]);
        }
    }
    for (size_t i = 0; i < count; i++)
        qr_free(paths[i]);
    qr_free(paths);
    return rc;
}

void qs_rules_release(struct qs_tree *tree)
{
    qs_rules_finish(&tree->rules);
    qs_ignore_finish(&tree->excludes);
    while (tree->directory_rules_count) {
        size_t last = --tree->directory_rules_count;
        qr_free(tree->directory_rules[last].path);
        qs_ignore_finish(&tree->directory_rules[last].ignore);
    }
    qr_free(tree->directory_rules);
    tree->directory_rules = NULL;
    for (size_t i = 0; i < tree->own_file_count; i++)
        qr_free(tree->own_files[i].path);
    qr_free(tree->own_files);
    tree->own_files = NULL;
    tree->own_file_count = 0;
}
