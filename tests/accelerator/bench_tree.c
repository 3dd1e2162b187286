/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees to measure on, and the least that finding out whether one has changed can cost.
 *
 *   bench_tree make DIR COUNT [empty]   COUNT files of 20 KiB on average (or of none), 100 in a
 *                                       directory; prints their names
 *   bench_tree stat DIR                 walks the tree and calls fstatat() for each file, on one
 *                                       thread; prints how many there were
 */
#include <dirent.h>
#include <sys/stat.h>

#include "bench.h"

enum { IN_A_DIRECTORY = 100 };

static void make(const char *top, size_t count, int empty)
{
    static uint8_t buffer[FILE_BYTES_MAX];
    if (mkdir(top, 0700))
        die("%s", top);
    int root = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        die("%s", top);
    for (size_t i = 0; i < count; i++) {
        char name[64];
        snprintf(name, sizeof name, "module-%05zu", i / IN_A_DIRECTORY);
        if (i % IN_A_DIRECTORY == 0 && mkdirat(root, name, 0700))
            die("%s", name);
        snprintf(name, sizeof name, "module-%05zu/source-%07zu.c", i / IN_A_DIRECTORY, i);
        if (!empty)
            file_content(i, 0, buffer);
        write_file(root, name, buffer, empty ? 0 : file_bytes(i));
        puts(name);
    }
    close(root);
}

static size_t stat_all(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory)
        die("%s", name);
    size_t files = 0;
    for (struct dirent *entry; (entry = readdir(directory));) {
        struct stat st;
        if (entry->d_name[0] == '.')
            continue;
        if (entry->d_type == DT_DIR)
            files += stat_all(fd, entry->d_name);
        else if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
            die("%s", entry->d_name);
        else
            files++;
    }
    closedir(directory);
    return files;
}

int main(int argc, char **argv)
{
    if (argc >= 4 && !strcmp(argv[1], "make"))
        make(argv[2], strtoull(argv[3], NULL, 10), argc > 4 && !strcmp(argv[4], "empty"));
    else if (argc == 3 && !strcmp(argv[1], "stat"))
        printf("%zu\n", stat_all(AT_FDCWD, argv[2]));
    else
        die("expected: bench_tree make DIR COUNT [empty], or bench_tree stat DIR");
    return 0;
}
