/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Redis: a server of its own on a Unix socket in the scratch directory, with an append-only file
 * that is synced every second. The work is SETRANGE of 64 bytes in strings of 4 KiB, a thousand
 * commands sent before their replies are read; and having the data back at start, whose time is
 * what the server itself logs.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/peer.h"
#include "bench/peer_store.h"
#include "bench/process.h"
#include "runtime/os.h"

enum { OUT = 256 << 10, COMMAND_MAX = 128 };

struct redis {
    struct qm_peer_work work; /* first */
    struct qm_process server;
    int socket;
    char *out; /* commands not yet sent */
    size_t fill;
    uint64_t deltas, replies; /* written before loading; not yet read */
    uint8_t *memory;
    uint64_t memory_length;
};

static int find(char *text, size_t size)
{
    char path[1024];
    if (!qm_find_program("redis-server", path, sizeof path)) {
        snprintf(text, size, "there is no redis-server");
        return 0;
    }
    snprintf(text, size, "%s", path);
    return 1;
}

const struct qm_peer qm_redis = {"redis", "redis-server", find};

/* --- talking to it --- */

static int send_out(struct redis *r)
{
    size_t done = 0;
    while (done < r->fill) {
        ssize_t n = write(r->socket, r->out + done, r->fill - done);
        if (n < 0 && errno != EINTR)
            return qr_fail_errno(errno, "writing to redis-server");
        done += n > 0 ? (size_t)n : 0;
    }
    r->fill = 0;
    return 0;
}

/* Every reply here is one line; one that begins with '-' is an error. */
static int read_replies(struct redis *r)
{
    char bytes[4096];
    int at_start = 1;
    while (r->replies > 0) {
        ssize_t n = read(r->socket, bytes, sizeof bytes - 1);
        bytes[n > 0 ? n : 0] = '\0';
        if (n == 0 || (n < 0 && errno != EINTR))
            return qr_fail(QALLOW_E_IO, "redis-server closed the connection");
        for (ssize_t i = 0; i < n; i++) {
            if (at_start && bytes[i] == '-')
                return qr_fail(QALLOW_E_UNAVAILABLE, "redis-server: %s",
                               qr_quote(bytes + i + 1, strcspn(bytes + i + 1, "\r\n")));
            at_start = bytes[i] == '\n';
            r->replies -= (uint64_t)at_start;
        }
    }
    return 0;
}

static int flush(struct redis *r)
{
    int rc = send_out(r);
    return rc < 0 ? rc : read_replies(r);
}

/* Adds `SET key value` or `SETRANGE key offset value`. */
static int add_command(struct redis *r, uint32_t page, int64_t offset, const void *bytes,
                       size_t length)
{
    if (r->fill + COMMAND_MAX + length > OUT) {
        int rc = flush(r);
        if (rc < 0)
            return rc;
    }
    char *at = r->out + r->fill, number[16];
    int digits = snprintf(number, sizeof number, "%d", (int)offset);
    if (offset < 0)
        at +=
            snprintf(at, COMMAND_MAX, "*3\r\n$3\r\nSET\r\n$11\r\nk%010u\r\n$%zu\r\n", page, length);
    else
        at += snprintf(at, COMMAND_MAX,
                       "*4\r\n$8\r\nSETRANGE\r\n$11\r\nk%010u\r\n$%d\r\n%s\r\n$%zu\r\n", page,
                       digits, number, length);
    memcpy(at, bytes, length);
    memcpy(at + length, "\r\n", 2);
    r->fill = (size_t)(at - r->out) + length + 2;
    r->replies++;
    return 0;
}

/* --- the server --- */

static int try_connect(struct redis *r, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return qr_fail(QALLOW_E_LIMIT, "%s: too long for a socket, see --dir", qr_quotez(path));
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    r->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (r->socket < 0)
        return qr_fail_errno(errno, "a socket");
    if (connect(r->socket, (struct sockaddr *)&address, sizeof address) == 0)
        return 1;
    close(r->socket);
    r->socket = -1;
    return 0;
}

/* 1 once it answers PING, 0 while it loads. */
static int is_ready(struct redis *r)
{
    char reply[64];
    if (write(r->socket, "PING\r\n", 6) != 6)
        return qr_fail_errno(errno, "writing to redis-server");
    ssize_t n = read(r->socket, reply, sizeof reply);
    if (n <= 0)
        return qr_fail(QALLOW_E_IO, "redis-server closed the connection");
    return strncmp(reply, "+PONG", 5) == 0;
}

static int wait_until_ready(struct qm_context *context, struct redis *r)
{
    int rc = 0, status;
    r->socket = -1;
    while (rc == 0) {
        rc = qm_stopped(context);
        if (rc == 0 && r->socket < 0)
            rc = try_connect(r, qm_path(context, "redis.sock"));
        if (rc >= 0 && r->socket >= 0)
            rc = is_ready(r);
        if (rc == 0 && waitpid(r->server.pid, &status, WNOHANG) == r->server.pid) {
            r->server.pid = 0;
            rc = qr_fail(QALLOW_E_UNAVAILABLE, "redis-server ended at once");
        }
        if (rc == 0)
            poll(NULL, 0, 2);
    }
    return rc < 0 ? rc : 0;
}

static int start_server(struct qm_context *context, struct redis *r)
{
    char path[1024];
    const char *const argv[] = {path,         "--port",
                                "0",          "--unixsocket",
                                "redis.sock", "--save",
                                "",           "--daemonize",
                                "no",         "--logfile",
                                "redis.log",  "--appendonly",
                                "yes",        "--appendfsync",
                                "everysec",   "--aof-use-rdb-preamble",
                                "no",         "--auto-aof-rewrite-percentage",
                                "0",          NULL};
    if (!qm_find_program("redis-server", path, sizeof path))
        return qr_fail(QALLOW_E_UNAVAILABLE, "there is no redis-server");
    unlink(qm_path(context, "redis.log"));
    int rc = qm_process_start(argv, context->directory, &r->server);
    return rc < 0 ? rc : wait_until_ready(context, r);
}

/* Ends it in order, so that the file is complete. */
static int stop_server(struct redis *r)
{
    static const char command[] = "SHUTDOWN NOSAVE\r\n";
    ssize_t n = write(r->socket, command, sizeof command - 1);
    close(r->socket);
    r->socket = -1;
    if (n < 0)
        return qr_fail_errno(errno, "writing to redis-server");
    return qm_process_wait(&r->server);
}

/* --- writes --- */

static int setup_both(struct qm_context *context)
{
    struct redis *r = context->state = qr_calloc(1, sizeof *r);
    if (!r)
        return qm_no_memory();
    r->socket = -1;
    r->out = qr_malloc(OUT);
    if (!r->out)
        return qm_no_memory();
    int rc = qm_peer_setup(context, &r->work, QALLOW_SYNC_INTERVAL, QM_PEER_BATCH);
    rc = rc < 0 ? rc : start_server(context, r);
    for (uint32_t i = 0; rc == 0 && i < r->work.store.page_count; i++)
        rc = add_command(r, i, -1, r->work.store.source + i * 64u % (QM_SOURCE - QM_PEER_PAGE),
                         QM_PEER_PAGE);
    return rc < 0 ? rc : flush(r);
}

static void finish(struct qm_context *context)
{
    struct redis *r = context->state;
    if (!r)
        return;
    if (r->socket >= 0)
        close(r->socket);
    qm_process_kill(&r->server);
    qm_unmap(r->memory, r->memory_length);
    qm_store_finish(&r->work.store);
    qr_free(r->out);
    qr_free(r);
}

static int pipeline(struct redis *r)
{
    int rc = 0;
    for (uint64_t n = 0; rc == 0 && n < QM_PEER_BATCH; n++) {
        uint32_t offset, page = qm_peer_place(&r->work, r->work.store.page_count, &offset);
        rc = add_command(r, page, offset, qm_peer_bytes(&r->work), QM_PEER_DELTA);
    }
    return rc < 0 ? rc : flush(r);
}

static int run_setrange(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct redis *r = context->state;
    double start = qm_now();
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < repeats; i++)
        rc = pipeline(r);
    *sample = (struct qm_sample){qm_now() - start, (double)repeats * QM_PEER_BATCH};
    return rc;
}

/* --- load at start --- */

/* Both files hold the pages and a delta for each 256 bytes of them. */
static int setup_load(struct qm_context *context)
{
    int rc = setup_both(context);
    struct redis *r = context->state;
    for (; rc == 0 && r->deltas < context->size / 256; r->deltas += QM_PEER_BATCH) {
        rc = qm_stopped(context);
        rc = rc < 0 ? rc : pipeline(r);
        rc = rc < 0 ? rc : qm_store_write(&r->work.writer, QM_PEER_BATCH);
    }
    rc = rc < 0 ? rc : stop_server(r);
    rc = rc < 0 ? rc : qm_store_close(&r->work.store);
    if (rc == 0)
        rc = qm_map(context->size, &r->memory);
    r->memory_length = rc == 0 ? context->size : 0;
    return rc;
}

static int run_load(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct redis *r = context->state;
    double start = qm_now();
    int rc = qm_store_load(&r->work.store, r->work.store.path, 0, 1, 1, r->memory);
    *sample = (struct qm_sample){qm_now() - start, (double)r->deltas};
    return rc;
}

/* The sum of what it logged as "DB loaded from ...: 0.123 seconds". */
static double logged_seconds(const char *path)
{
    char line[512];
    double seconds = 0;
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) {
        const char *at = strstr(line, "DB loaded from"), *colon = at ? strrchr(at, ':') : NULL;
        if (colon)
            seconds += strtod(colon + 1, NULL);
    }
    if (file)
        fclose(file);
    return seconds;
}

static int run_start(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct redis *r = context->state;
    int rc = start_server(context, r);
    rc = rc < 0 ? rc : stop_server(r);
    *sample = (struct qm_sample){logged_seconds(qm_path(context, "redis.log")), (double)r->deltas};
    return rc;
}

static const struct qm_work writing = {setup_both, qm_peer_run, run_setrange, finish};
static const struct qm_work loading = {setup_load, run_load, run_start, finish};

/* clang-format off */
const struct qm_case qm_redis_cases[] = {
    {"peer/redis-write", "vs Redis: 64 B writes", "Redis SETRANGE",
     "64-byte writes into values of 4 KiB, 1,000 in a commit, log synced once a second; beside "
     "SETRANGE of 64 bytes, 1,000 in a pipeline on a Unix socket, appendfsync everysec.",
     &qm_thousand_s, {QM_RATIO, 10}, &writing, .size = 64 << 20, .smoke_size = 4 << 20,
     .peer = &qm_redis},
    {"peer/redis-load", "vs Redis: load at start", "Redis AOF load",
     "A log of a delta for each 256 bytes of the state is read whole and the state loaded into "
     "memory, verified; beside Redis loading an append-only file of the same writes, as it logs "
     "it. Deltas a second.",
     &qm_thousand_s, {QM_RATIO, 10}, &loading, .size = 64 << 20, .smoke_size = 8 << 20,
     .fixed = 1, .peer = &qm_redis},
    {0},
};
