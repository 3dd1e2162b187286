/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow accelerator --get PATH...` and `--cat PATH`: what caches say of single files.
 *
 * Each path is asked of the cache that covers it: the one of --watch or --file, else that of the
 * nearest directory at or above the path (or of the path itself, if it is a file that is kept
 * alone), whatever cache the others belong to. The name of a path is made absolute with the links
 * on its way followed, as a cache's directory has none in its name; a link at its end is followed
 * only if no cache covers the link itself.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "interface/cmd_accelerator.h"
#include "interface/report.h"
#include "qallow/accelerator.h"
#include "runtime/error.h"
#include "runtime/os.h"

struct get {
    struct qi_context *context;
    const struct accelerator *a;
    struct qallow_cache *cache; /* that of the present path */
    struct qallow_cache_info info;
    int full_said;
    int uncovered, missing, unsettled; /* some path was so */
};

/* --- names --- */

/* "a/./b//../c" becomes "a/c". In place. */
static void tidy_path(char *path)
{
    char *out = path;
    for (const char *in = path; *in;) {
        size_t n = strcspn(in, "/");
        const char *next = in + n + (in[n] == '/');
        if (n == 2 && in[0] == '.' && in[1] == '.') {
            while (out > path && *--out != '/')
                ;
        } else if (n > 0 && !(n == 1 && in[0] == '.')) {
            if (out > path)
                *out++ = '/';
            memmove(out, in, n);
            out += n;
        }
        in = next;
    }
    *out = '\0';
}

/* *name = "/real/rest" without "." and "..", which may only be in `rest`. */
static int join(const char *real, const char *rest, char **name)
{
    size_t size = strlen(real) + strlen(rest) + 3;
    *name = qr_malloc(size);
    if (!*name)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a path");
    snprintf(*name, size, "/%s/%s", real, rest);
    tidy_path(*name + 1);
    return 0;
}

/* The real name of the directory that the first `length` bytes of `path` name; else NULL and errno.
 */
static char *real_directory(const char *path, size_t length)
{
    char *way = qr_malloc(length + 2);
    if (!way) {
        errno = ENOMEM;
        return NULL;
    }
    memcpy(way, length ? path : ".", length ? length : 1);
    way[length ? length : 1] = '\0';
    char *real = realpath(way, NULL);
    qr_free(way);
    return real;
}

/* The absolute name of `path`: that of the directories on its way is the real one, as far as they
 * exist. */
static int absolute_name(const char *path, char **name)
{
    size_t at = strlen(path);
    char *real = NULL;
    for (;;) {
        while (at > 0 && path[at - 1] != '/')
            at--;
        real = real_directory(path, at);
        if (real || at == 0 || (errno != ENOENT && errno != ENOTDIR))
            break;
        while (at > 0 && path[at - 1] == '/')
            at--;
    }
    if (!real)
        return qr_fail_errno(errno, "%s", qr_quotez(path));
    int result = join(real, path + at, name);
    free(real);
    return result;
}

/* --- caches --- */

static int is_link(const char *name)
{
    struct stat st;
    return lstat(name, &st) == 0 && S_ISLNK(st.st_mode);
}

/* Opens the cache that is nearest to *name, which becomes the name of what a link leads to if no
 * cache covers the link. */
static int open_nearest(char **name, struct qallow_cache **cache)
{
    char *parent;
    if (!is_link(*name))
        return qallow_cache_open_above(*name, cache);
    int result = join(*name, "..", &parent);
    if (result < 0)
        return result;
    result = qallow_cache_open_above(parent, cache);
    qr_free(parent);
    char *target = result == QALLOW_E_UNAVAILABLE ? realpath(*name, NULL) : NULL;
    if (!target)
        return result;
    qr_free(*name);
    result = join(target, "", name);
    free(target);
    return result < 0 ? result : qallow_cache_open_above(*name, cache);
}

/* The one cache that was named, or the one of this path. */
static int open_cache(struct get *g, char **name)
{
    const struct accelerator *a = g->a;
    int result = 0;
    if (a->file || a->watch.count) {
        if (!g->cache)
            result = qallow_cache_open(a->file ? a->file : a->watch.items[0], &g->cache);
    } else {
        qallow_cache_close(g->cache);
        g->cache = NULL;
        result = open_nearest(name, &g->cache);
    }
    g->info = (struct qallow_cache_info)QALLOW_CACHE_INFO_INIT;
    if (result == 0)
        result = qallow_cache_info(g->cache, &g->info);
    if (result == 0 && g->info.refused && !g->full_said) {
        qi_note(g->context, "the cache is full: %llu paths are not in it",
                (unsigned long long)g->info.refused);
        g->full_said = 1;
    }
    return result;
}

/* A file that is kept alone is its cache's root, and in it under its own name. */
static const char *alone(const char *root)
{
    struct stat st;
    return stat(root, &st) == 0 && S_ISDIR(st.st_mode) ? "" : strrchr(root, '/') + 1;
}

/* What the absolute `name` is called in the cache; NULL if it is outside. */
static const char *name_in_cache(const struct get *g, const char *name)
{
    const char *root = qallow_cache_root(g->cache);
    size_t length = strcmp(root, "/") == 0 ? 0 : strlen(root);
    if (strncmp(name, root, length) != 0 || (name[length] != '/' && name[length] != '\0'))
        return NULL;
    return name[length] == '/' ? name + length + 1 : alone(root);
}

/* --- asking --- */

/* There is no such file in the cache, as `result` says. */
static int miss(struct get *g, const char *path, int result)
{
    qi_error(g->context, "%s: not in the cache%s", qr_quotez(path),
             result == QALLOW_E_LIMIT ? ", which is full" : "");
    g->missing = 1;
    return 0;
}

/* "HASH  PATH", as the checksum tools print it: a name with a line break or a backslash is escaped,
 * and the line begins with a backslash then. */
static void print_sum(const struct get *g, const char *path, const struct qallow_file *file)
{
    int escape = strpbrk(path, "\\\n\r") != NULL;
    if (escape)
        putchar('\\');
    for (uint32_t i = 0; i < g->info.hash_bytes; i++)
        printf("%02x", file->hash[i]);
    fputs("  ", stdout);
    for (const char *c = path; *c; c++) {
        if (*c == '\\')
            fputs("\\\\", stdout);
        else if (*c == '\n')
            fputs("\\n", stdout);
        else if (*c == '\r')
            fputs("\\r", stdout);
        else
            putchar(*c);
    }
    putchar('\n');
}

/* What there is to say of a file whose newest content the cache does not have. */
static void say_unsettled(struct get *g, const char *path, const struct qallow_file *file)
{
    g->unsettled |= file->state != QALLOW_FILE_CURRENT;
    if (g->context->json)
        return;
    if (file->state == QALLOW_FILE_UNREADABLE)
        qi_error(g->context, "%s: its content cannot be read", qr_quotez(path));
    if (file->state == QALLOW_FILE_PENDING)
        qi_error(g->context, "%s: it has changed since; --sync waits until that is known",
                 qr_quotez(path));
}

static int get_one(struct get *g, const char *path, const char *name)
{
    struct qallow_file file;
    int result = qallow_cache_get(g->cache, name, &file);
    if (result < 0)
        return result;
    if (g->context->json) {
        cJSON *line = qi_json_begin(g->context);
        accelerator_json_file(line, path, &file, g->info.hash_bytes);
        result = qi_json_end(line);
    } else if (file.state != QALLOW_FILE_UNREADABLE) {
        print_sum(g, path, &file);
    }
    say_unsettled(g, path, &file);
    return result;
}

/* The bytes are copied before the first is printed, so they are those of one moment. */
static int cat_one(struct get *g, const char *path, const char *name)
{
    struct qallow_file file;
    uint64_t capacity = 0;
    void *bytes = NULL;
    int result;
    while ((result = qallow_cache_content(g->cache, name, bytes, capacity, &file)) == 0 &&
           file.size > capacity) {
        qr_free(bytes);
        capacity = file.size;
        bytes = qr_malloc(capacity);
        if (!bytes)
            return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the %llu bytes of %s",
                           (unsigned long long)capacity, qr_quotez(path));
    }
    if (result == 0) {
        say_unsettled(g, path, &file);
        result = file.size ? qi_stdout_write(bytes, file.size) : 0;
    } else if (result == QALLOW_E_UNAVAILABLE) {
        qr_fail(result,
                "%s: the cache does not have its bytes; a keeper with --content has those of files "
                "up to a size, as far as they fit",
                qr_quotez(path));
    }
    qr_free(bytes);
    return result;
}

/* --- all --- */

/* Asks for `path`, which is `name` in its cache. */
typedef int (*ask_fn)(struct get *g, const char *path, const char *name);

/* Asks the cache that covers `path`. 0 also if there is none or the path is not in it, which has
 * been said. */
static int look_up(struct get *g, const char *path, ask_fn ask)
{
    int is_named = g->a->file || g->a->watch.count;
    int is_relative = g->a->watch.count && path[0] != '/'; /* to --watch DIR */
    char *name = NULL;
    int result = is_relative ? join("", path, &name) : absolute_name(path, &name);
    if (result == 0)
        result = open_cache(g, &name);
    if (result == QALLOW_E_UNAVAILABLE && !is_named) {
        qi_error(g->context, "%s: no directory at or above it is cached", qr_quotez(path));
        g->uncovered = 1;
        result = 0;
    } else if (result == 0) {
        const char *inside = is_relative ? name + 1 : name_in_cache(g, name);
        result = inside ? ask(g, path, inside) : QALLOW_E_PAGE_NOT_FOUND;
    }
    if (result == QALLOW_E_PAGE_NOT_FOUND || result == QALLOW_E_LIMIT)
        result = miss(g, path, result);
    qr_free(name);
    return result;
}

int accelerator_get(struct qi_context *context, const struct accelerator *a)
{
    struct get g = {.context = context, .a = a};
    int result = 0;
    for (size_t i = 0; i < a->paths.count && result == 0; i++)
        result = look_up(&g, a->paths.items[i], a->cat ? cat_one : get_one);
    char detail[1024];
    snprintf(detail, sizeof detail, "%s", qallow_error_detail());
    qallow_cache_close(g.cache);
    if (result < 0)
        return qr_fail(result, "%s", detail);
    return g.uncovered ? QI_UNAVAILABLE : g.missing ? QI_NO_INPUT : g.unsettled ? QI_TRY_AGAIN : 0;
}
