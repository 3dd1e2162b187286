/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From close(2) of a written file until somebody knows.
 *
 *   bench_latency HOW DIR SAMPLES GAP [SOCKET]
 *
 * HOW says who is to know:
 *   raw-blocked          a thread that sleeps in read(2) of an inotify descriptor
 *   raw-spinning         one that polls it
 *   cache-waiting        a thread that sleeps in qallow_cache_wait(), until the hash in the cache
 *                        is that of what was written
 *   cache-spinning       the thread that wrote, polling the cache
 *   cache-alone          the thread that wrote, sleeping in qallow_cache_wait()
 *   inotifywait          the thread that wrote, sleeping until inotifywait has printed the name
 *   watchman-subscribed  the thread that wrote, sleeping until a subscription names the file
 *   watchman-asked       the thread that wrote, asking for changes with their SHA-1
 *
 * In the first three the writer stays busy on processor 0, the other thread is bound to processor 1
 * and the keeper is bound to nothing: a program that goes on working while another one reacts. In
 * the others there is one thread, so that the keeper has a processor to itself. GAP microseconds
 * before each write are for who sleeps to fall asleep. Prints the percentiles 1 to 99 and the
 * greatest of SAMPLES, in microseconds.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/inotify.h>

#include "bench.h"

enum { SAMPLES_MAX = 100000 };
static const char name[] = "written";
static double samples[SAMPLES_MAX];
static size_t sample_count;
static const char *directory;
static int root;
static unsigned gap;
static struct qallow_cache *cache;

/* The writer and the other thread take turns: closed_at is not 0 from just before the close until
 * the other thread knows of it, and `hash` is its own meanwhile; `known` counts what it has seen.
 */
static _Atomic uint64_t closed_at;
static _Atomic size_t known;
static uint8_t hash[16];

/* Writes the file anew and returns when it was closed. */
static uint64_t write_once(void)
{
    static uint64_t number;
    static char text[FILE_BYTES_MAX];
    pause_us(gap);
    int n = snprintf(text, sizeof text, "%016llx", (unsigned long long)(now_ns() ^ ++number));
    expected_hash(text, (size_t)n, hash);
    int fd = openat(root, name, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, (size_t)n) != n)
        die("%s", name);
    uint64_t at = now_ns();
    atomic_store(&closed_at, at);
    if (close(fd))
        die("close");
    return at;
}

static double us_since(uint64_t from) { return (double)(int64_t)(now_ns() - from) / 1e3; }

/* The keeper may be so early that the file is not closed yet. */
static int cache_knows(void)
{
    struct qallow_file file;
    while (!atomic_load(&closed_at))
        ;
    return qallow_cache_get(cache, name, &file) == 0 && memcmp(file.hash, hash, 16) == 0;
}

/* --- two threads --- */

static int inotify_fd;
static void (*know)(void); /* returns when the other thread knows */

static void know_by_inotify(void)
{
    char events[4096];
    while (read(inotify_fd, events, sizeof events) <= 0)
        if (errno != EAGAIN)
            die("read");
}

static void know_by_cache(void)
{
    static uint64_t epoch;
    do
        must(qallow_cache_wait(cache, epoch, 10 * INT64_C(1000000000), 0, &epoch), "wait");
    while (!cache_knows());
}

static void *other_thread(void *unused)
{
    pin(1);
    for (size_t i = 0; i < sample_count; i++) {
        know();
        samples[i] = us_since(atomic_load(&closed_at));
        atomic_store(&closed_at, 0);
        atomic_store(&known, i + 1);
    }
    return NULL;
}

static void measure_two(void (*how)(void))
{
    pthread_t thread;
    know = how;
    pin(0);
    if (pthread_create(&thread, NULL, other_thread, NULL))
        die("pthread_create");
    for (size_t i = 0; i < sample_count; i++) {
        write_once();
        while (atomic_load(&known) == i)
            ;
    }
    pthread_join(thread, NULL);
}

static void measure_inotify(int flags)
{
    inotify_fd = inotify_init1(IN_CLOEXEC | flags);
    if (inotify_add_watch(inotify_fd, directory, IN_CLOSE_WRITE) < 0)
        die("inotify");
    measure_two(know_by_inotify);
}

/* --- one thread --- */

static void measure_cache(uint64_t spin_ns)
{
    uint64_t epoch = qallow_cache_epoch(cache);
    for (size_t i = 0; i < sample_count; i++) {
        uint64_t at = write_once();
        do
            must(qallow_cache_wait(cache, epoch, 10 * INT64_C(1000000000), spin_ns, &epoch),
                 "wait");
        while (!cache_knows());
        samples[i] = us_since(at);
    }
}

static void measure_inotifywait(void)
{
    char line[8192];
    pid_t pid;
    FILE *lines = inotifywait(directory, &pid);
    for (size_t i = 0; i < sample_count; i++) {
        uint64_t at = write_once();
        if (!fgets(line, sizeof line, lines) || !strstr(line, name))
            die("inotifywait missed a change");
        samples[i] = us_since(at);
    }
    kill(pid, SIGKILL);
}

static void measure_subscription(const char *socket_path)
{
    struct watchman client = watchman_connect(socket_path);
    watchman_ask(&client, "[\"subscribe\",\"%s\",\"bench\",{\"fields\":[\"name\"]}]", directory);
    watchman_read(&client); /* what is there already */
    for (size_t i = 0; i < sample_count; i++) {
        uint64_t at = write_once();
        while (!strstr(watchman_read(&client), name))
            ;
        samples[i] = us_since(at);
    }
}

static void measure_query(const char *socket_path)
{
    char clock[128];
    struct watchman client = watchman_connect(socket_path);
    watchman_clock(watchman_ask(&client, "[\"clock\",\"%s\"]", directory), clock);
    for (size_t i = 0; i < sample_count; i++) {
        uint64_t at = write_once();
        const char *answer = watchman_ask(&client,
                                          "[\"query\",\"%s\",{\"since\":\"%s\",\"fields\":"
                                          "[\"name\",\"content.sha1hex\"]}]",
                                          directory, clock);
        samples[i] = us_since(at);
        if (!strstr(answer, name))
            die("watchman missed a change: %s", answer);
        watchman_clock(answer, clock);
    }
}

static void measure(const char *how, const char *socket_path)
{
    if (!strncmp(how, "cache-", 6))
        must(qallow_cache_open(directory, &cache), directory);
    if (!strcmp(how, "raw-blocked"))
        measure_inotify(0);
    else if (!strcmp(how, "raw-spinning"))
        measure_inotify(IN_NONBLOCK);
    else if (!strcmp(how, "cache-waiting"))
        measure_two(know_by_cache);
    else if (!strcmp(how, "cache-spinning"))
        measure_cache(UINT64_C(1000000000));
    else if (!strcmp(how, "cache-alone"))
        measure_cache(0);
    else if (!strcmp(how, "inotifywait"))
        measure_inotifywait();
    else if (!strcmp(how, "watchman-subscribed") && socket_path)
        measure_subscription(socket_path);
    else if (!strcmp(how, "watchman-asked") && socket_path)
        measure_query(socket_path);
    else
        die("no such measurement: %s", how);
}

int main(int argc, char **argv)
{
    sample_count = argc > 4 ? strtoull(argv[3], NULL, 10) : 0;
    if (sample_count < 1 || sample_count > SAMPLES_MAX)
        die("expected: bench_latency HOW DIR SAMPLES GAP [SOCKET]");
    directory = argv[2];
    gap = (unsigned)strtoul(argv[4], NULL, 10);
    root = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        die("%s", directory);
    measure(argv[1], argc > 5 ? argv[5] : NULL);
    qallow_cache_close(cache);

    double percentiles[99];
    qsort(samples, sample_count, sizeof *samples, compare_doubles);
    for (size_t i = 1; i <= 99; i++)
        percentiles[i - 1] = samples[sample_count * i / 100];
    print_values("{", "percentiles_us", percentiles, 99);
    printf(", \"greatest_us\": %.6g}\n", samples[sample_count - 1]);
    return 0;
}
