/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the programs that scripts/bench-accelerator.sh runs have in common: a clock, lists of names,
 * a way to print figures, and as much of a watchman client as a comparison needs. They are not
 * tests: each measures one thing once or a few times and prints one JSON object; tests/accelerator/
 * bench.py runs them in turns and compares.
 */
#ifndef TESTS_ACCELERATOR_BENCH_H
#define TESTS_ACCELERATOR_BENCH_H

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "qallow/accelerator.h"
#include "tests/random.h"

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, " (%s)\n", strerror(errno));
    exit(1);
}

/* The result of a function of the library. */
static inline void must(int result, const char *what)
{
    if (result)
        die("%s: %s: %s", what, qallow_strerror(result), qallow_error_detail());
}

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Nothing, if there is no such processor. */
static inline void pin(int processor)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    sched_setaffinity(0, sizeof set, &set);
}

/* Waits `microseconds` as a busy program does up to a millisecond, as an idle one beyond. */
static inline void pause_us(unsigned microseconds)
{
    uint64_t from = now_ns();
    if (microseconds > 1000) {
        struct timespec t = {0, (long)(microseconds - 100) * 1000};
        nanosleep(&t, NULL);
    }
    while (now_ns() - from < (uint64_t)microseconds * 1000)
        ;
}

static inline int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* "name": [1, 2, 3] */
static inline void print_values(const char *before, const char *name, const double *values,
                                size_t count)
{
    printf("%s\"%s\": [", before, name);
    for (size_t i = 0; i < count; i++)
        printf("%s%.6g", i ? ", " : "", values[i]);
    printf("]");
}

/* --- names --- */

struct names {
    char *text;
    char **name;
    size_t count;
};

/* A file of one path a line. */
static inline struct names read_names(const char *path)
{
    struct names names = {NULL, NULL, 0};
    FILE *file = fopen(path, "r");
    if (!file || fseek(file, 0, SEEK_END))
        die("%s", path);
    size_t bytes = (size_t)ftell(file);
    rewind(file);
    names.text = malloc(bytes + 1);
    names.name = malloc((bytes / 2 + 1) * sizeof *names.name);
    if (!names.text || !names.name || fread(names.text, 1, bytes, file) != bytes)
        die("%s", path);
    fclose(file);
    names.text[bytes] = 0;
    for (char *line = names.text, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        names.name[names.count++] = line;
    }
    if (!names.count)
        die("%s holds no names", path);
    return names;
}

/* --- the content of the files --- */

enum { FILE_BYTES_MAX = 40960, BLOB_BYTES = 1 << 20 };

/* 1 to 39 KiB, 20 KiB on average, in no particular order. */
static inline size_t file_bytes(size_t number) { return 1024 + number * 7919 % 38913; }

/* What file `number` of this generation holds: no two are the same. */
static inline void file_content(size_t number, uint64_t generation, uint8_t buffer[FILE_BYTES_MAX])
{
    static uint8_t *blob;
    if (!blob) {
        uint64_t state = 1;
        blob = malloc(BLOB_BYTES);
        if (!blob)
            die("no memory");
        for (size_t i = 0; i < BLOB_BYTES; i += 8) {
            uint64_t word = next_random(&state);
            memcpy(blob + i, &word, 8);
        }
    }
    size_t size = file_bytes(number);
    memcpy(buffer, blob + (number * 104729 + generation * 7877) % (BLOB_BYTES - size), size);
    memcpy(buffer, &number, 8);
    memcpy(buffer + 8, &generation, 8);
}

static inline void write_file(int directory, const char *name, const void *bytes, size_t size)
{
    int fd = openat(directory, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, bytes, size) != (ssize_t)size || close(fd))
        die("%s", name);
}

/* The XXH3-128 as the cache has it. */
static inline void expected_hash(const void *bytes, size_t size, uint8_t hash[16])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes, size));
    memcpy(hash, canonical.digest, 16);
}

/* --- inotifywait --- */

/* Starts inotifywait on `directory` and what is below, and waits until it watches. It prints a line
 * for each file that is closed, and ends with us. */
static inline FILE *inotifywait(const char *directory, pid_t *pid)
{
    int out[2], err[2], watches = 0;
    char line[8192];
    if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC) || (*pid = fork()) < 0)
        die("inotifywait");
    if (*pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(out[1], STDOUT_FILENO);
        dup2(err[1], STDERR_FILENO);
        execlp("inotifywait", "inotifywait", "-m", "-r", "-e", "close_write", "--format", "%w%f",
               directory, (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    close(err[1]);
    FILE *said = fdopen(err[0], "r"), *lines = fdopen(out[0], "r");
    while (!watches && said && fgets(line, sizeof line, said))
        watches = strstr(line, "Watches established") != NULL;
    if (!watches || !lines)
        die("inotifywait does not watch %s", directory);
    return lines; /* what it says stays open */
}

/* --- watchman --- */

struct watchman {
    int fd;
    char *buffer; /* the line read last, NUL-terminated */
    size_t used, line, capacity;
};

static inline struct watchman watchman_connect(const char *socket_path)
{
    struct watchman client = {socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), NULL, 0, 0, 1 << 20};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", socket_path);
    client.buffer = malloc(client.capacity);
    if (!client.buffer || connect(client.fd, (const struct sockaddr *)&address, sizeof address))
        die("%s", socket_path);
    return client;
}

/* Returns the next line; valid until the next call. */
static inline char *watchman_read(struct watchman *client)
{
    memmove(client->buffer, client->buffer + client->line, client->used - client->line);
    client->used -= client->line;
    size_t looked = 0;
    for (;;) {
        char *end = memchr(client->buffer + looked, '\n', client->used - looked);
        if (end) {
            *end = 0;
            client->line = (size_t)(end - client->buffer) + 1;
            return client->buffer;
        }
        looked = client->used;
        if (client->used == client->capacity) {
            client->capacity *= 2;
            client->buffer = realloc(client->buffer, client->capacity);
            if (!client->buffer)
                die("no memory");
        }
        ssize_t n =
            read(client->fd, client->buffer + client->used, client->capacity - client->used);
        if (n <= 0)
            die("watchman does not answer");
        client->used += (size_t)n;
    }
}

/* Sends a request and returns the answer, leaving out what subscriptions say. */
__attribute__((format(printf, 2, 3))) static inline char *watchman_ask(struct watchman *client,
                                                                       const char *format, ...)
{
    char request[8192];
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(request, sizeof request - 1, format, arguments);
    va_end(arguments);
    request[n++] = '\n';
    if (n >= (int)sizeof request || write(client->fd, request, (size_t)n) != n)
        die("watchman does not listen");
    for (;;) {
        char *line = watchman_read(client);
        if (strstr(line, "\"error\""))
            die("%s -> %s", request, line);
        if (!strstr(line, "\"subscription\"") || strstr(line, "\"subscribe\""))
            return line;
    }
}

/* The clock in an answer. */
static inline void watchman_clock(const char *answer, char clock[128])
{
    const char *at = strstr(answer, "\"clock\":\"");
    if (!at || sscanf(at + 9, "%127[^\"]", clock) != 1)
        die("no clock in %s", answer);
}

#endif
