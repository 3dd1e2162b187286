/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory is not to be lost to directories that are no more. A cache outlives its keeper, so that
 * the next one finds it; when the directory has gone there will be no next one. So each keeper,
 * when it has opened its own cache, looks at the others of its user in the same place, and removes
 * those whose directory does not exist and whose lock nobody holds. Readers that still have one
 * mapped keep it until they close it.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "accelerator/cache_internal.h"
#include "accelerator/cache_segment.h"
#include "runtime/error.h"
#include "telemetry/telemetry.h"

/* The directory that the segment says it is the cache of; 1, or 0 if that is not to be believed. */
static int root_of(const char *path, char root[QA_ROOT_MAX])
{
    struct qa_header header;
    uint64_t size = 0;
    int fd = qa_segment_open_file(path, 0, &size);
    if (fd < 0)
        return 0;
    int whole = pread(fd, &header, sizeof header, 0) == (ssize_t)sizeof header;
    close(fd);
    if (!whole || memcmp(header.magic, QA_CACHE_MAGIC, 8) != 0 ||
        header.version != QA_CACHE_VERSION || header.root[0] != '/' ||
        !memchr(header.root, '\0', sizeof header.root))
        return 0;
    memcpy(root, header.root, sizeof header.root);
    return 1;
}

static int is_gone(const char *path)
{
    struct stat st;
    return lstat(path, &st) < 0 && (errno == ENOENT || errno == ENOTDIR);
}

/* Under its lock, so that no keeper is taking it over at the same time. The lock's file goes last:
 * whoever waits for it finds out that it was removed. */
static void remove_orphan(const char *path, const char *root)
{
    static const char *const suffixes[] = {"", ".new", ".readers", ".sock", ".lock"};
    char name[QA_SEGMENT_PATH + 16];
    int lock = qa_segment_lock(path);
    if (lock < 0)
        return;
    if (is_gone(root)) {
        for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
            snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
            unlink(name);
        }
        qt_log(QT_INFO, "the cache of %s is removed, which does not exist any more",
               qr_quotez(root));
    }
    close(lock);
}

/* Our name is PLACE/qallow-UID-HEX; another's differs in HEX only. */
static int is_another(const char *own, const char *name)
{
    const char *hex = strrchr(own, '-') + 1;
    size_t length = strlen(own), prefix = (size_t)(hex - own);
    return strlen(name) == length && strncmp(name, own, prefix) == 0 && strcmp(name, own) != 0 &&
           strspn(name + prefix, "0123456789abcdef") == length - prefix;
}

void qa_cache_remove_orphans(const struct qa_cache *cache)
{
    const char *own = qa_cache_path(cache), *slash = strrchr(own, '/');
    char place[QA_SEGMENT_PATH], path[QA_SEGMENT_PATH], root[QA_ROOT_MAX];
    int length = snprintf(place, sizeof place, "%.*s", (int)(slash - own), own);
    DIR *entries = length > 0 && (size_t)length < sizeof place ? opendir(place) : NULL;
    const struct dirent *entry;
    while (entries && (entry = readdir(entries))) {
        if (!is_another(slash + 1, entry->d_name))
            continue;
        length = snprintf(path, sizeof path, "%s/%s", place, entry->d_name);
        if (length > 0 && (size_t)length < sizeof path && root_of(path, root) && is_gone(root))
            remove_orphan(path, root);
    }
    if (entries)
        closedir(entries);
}
