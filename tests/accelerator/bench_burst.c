/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many files changed while the one that watches was stopped: how long from SIGCONT until it has all
 * their hashes, and how long the least program takes that reads and hashes them.
 *
 *   bench_burst HOW DIR NAMES GENERATION [PID [SOCKET CLOCK]]
 *
 * HOW says what is measured:
 *   read         reads and hashes the files with two threads; writes nothing before
 *   floor        the same after writing, and checks the hashes
 *   cache        until a reader of the cache, which sleeps until there is a new epoch, has seen all
 *   inotifywait  until it has printed the names of all; it hashes nothing
 *   watchman     until watchman has said the SHA-1 of all files changed since CLOCK
 *
 * All but the first first write generation GENERATION of all files in place and syncs the file
 * system, so that the disk is at rest when the time begins. Prints milliseconds.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "bench.h"

enum { THREADS = 2, AT_ONCE = 16 };

static struct names names;
static uint8_t (*hashes)[16]; /* of what was written */
static int is_written;
static int root;

static void write_all(uint64_t generation)
{
    static uint8_t buffer[FILE_BYTES_MAX];
    for (size_t i = 0; i < names.count; i++) {
        file_content(i, generation, buffer);
        expected_hash(buffer, file_bytes(i), hashes[i]);
        write_file(root, names.name[i], buffer, file_bytes(i));
    }
    if (syncfs(root))
        die("syncfs");
}

/* --- the floor --- */

static _Atomic size_t next_name;

static void *read_some(void *processor)
{
    uint8_t *buffer = malloc(FILE_BYTES_MAX);
    pin((int)(intptr_t)processor);
    for (size_t i; (i = atomic_fetch_add(&next_name, AT_ONCE)) < names.count;) {
        size_t end = i + AT_ONCE < names.count ? i + AT_ONCE : names.count;
        for (; i < end; i++) {
            uint8_t hash[16];
            int fd = openat(root, names.name[i], O_RDONLY | O_CLOEXEC);
            ssize_t n = read(fd, buffer, FILE_BYTES_MAX);
            close(fd);
            expected_hash(buffer, n < 0 ? 0 : (size_t)n, hash);
            if (is_written && memcmp(hash, hashes[i], 16) != 0)
                die("%s is not as written", names.name[i]);
        }
    }
    free(buffer);
    return NULL;
}

static double time_floor(void)
{
    pthread_t threads[THREADS];
    uint64_t from = now_ns();
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, read_some, (void *)(intptr_t)i))
            die("pthread_create");
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    return (double)(now_ns() - from) / 1e6;
}

/* --- those that watch --- */

static double time_cache(const char *directory, pid_t keeper, size_t *epochs)
{
    struct qallow_cache *cache;
    must(qallow_cache_open(directory, &cache), directory);
    uint64_t epoch = qallow_cache_epoch(cache), from = now_ns();
    *epochs = 0;
    if (kill(keeper, SIGCONT))
        die("kill");
    for (size_t i = 0; i < names.count;) {
        struct qallow_file file;
        if (qallow_cache_get(cache, names.name[i], &file) == 0 &&
            memcmp(file.hash, hashes[i], 16) == 0) {
            i++;
            continue;
        }
        must(qallow_cache_wait(cache, epoch, 60 * INT64_C(1000000000), 0, &epoch), "wait");
        ++*epochs;
    }
    double took = (double)(now_ns() - from) / 1e6;
    qallow_cache_close(cache);
    return took;
}

static pid_t printer; /* inotifywait, while it is stopped, */
static FILE *printed; /* and what it prints */

static void start_inotifywait(const char *directory)
{
    int status;
    printed = inotifywait(directory, &printer);
    if (kill(printer, SIGSTOP) || waitpid(printer, &status, WUNTRACED) != printer)
        die("stopping inotifywait");
}

static double time_inotifywait(void)
{
    char line[8192];
    uint64_t from = now_ns();
    if (kill(printer, SIGCONT))
        die("kill");
    for (size_t i = 0; i < names.count; i++)
        if (!fgets(line, sizeof line, printed))
            die("inotifywait gave %zu names of %zu", i, names.count);
    double took = (double)(now_ns() - from) / 1e6;
    kill(printer, SIGKILL);
    return took;
}

static double time_watchman(const char *directory, pid_t server, const char *socket_path,
                            const char *since)
{
    struct watchman client = watchman_connect(socket_path);
    uint64_t from = now_ns();
    if (kill(server, SIGCONT))
        die("kill");
    char *answer =
        watchman_ask(&client,
                     "[\"query\",\"%s\",{\"since\":\"%s\",\"expression\":[\"type\",\"f\"],"
                     "\"fields\":[\"name\",\"content.sha1hex\"]}]",
                     directory, since);
    double took = (double)(now_ns() - from) / 1e6;
    size_t found = 0;
    for (const char *at = answer; (at = strstr(at, "\"content.sha1hex\":\"")); at++)
        found++;
    if (found != names.count)
        die("watchman gave %zu hashes of %zu", found, names.count);
    return took;
}

int main(int argc, char **argv)
{
    if (argc < 5)
        die("expected: bench_burst read|floor|cache|inotifywait|watchman DIR NAMES GENERATION [PID "
            "[SOCKET CLOCK]]");
    names = read_names(argv[3]);
    hashes = malloc(names.count * sizeof *hashes);
    root = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!hashes || root < 0)
        die("%s", argv[2]);
    pid_t pid = argc > 5 ? (pid_t)strtol(argv[5], NULL, 10) : 0;
    size_t epochs = 0;
    double took;
    is_written = strcmp(argv[1], "read") != 0;
    int is_inotifywait = !strcmp(argv[1], "inotifywait");
    if (is_inotifywait)
        start_inotifywait(argv[2]);
    if (is_written)
        write_all(strtoull(argv[4], NULL, 10));
    if (!strcmp(argv[1], "cache") && pid > 1)
        took = time_cache(argv[2], pid, &epochs);
    else if (!strcmp(argv[1], "watchman") && pid > 1 && argc == 8)
        took = time_watchman(argv[2], pid, argv[6], argv[7]);
    else if (is_inotifywait)
        took = time_inotifywait();
    else if (!strcmp(argv[1], "floor") || !is_written)
        took = time_floor();
    else
        die("no such measurement: %s", argv[1]);
    printf("{\"ms\": %.6g, \"epochs\": %zu}\n", took, epochs);
    return 0;
}
