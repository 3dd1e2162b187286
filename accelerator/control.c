/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recorder's socket.
 *
 * The name of a log may be longer than a socket address (108 bytes), so the socket is bound under
 * a short name through /proc/self/fd/<directory> and then renamed to LOG.sock, which also replaces
 * in one step what a killed recorder left behind. Its mode is 0600 before anybody can see it, and
 * the peer's user is checked besides. A request is a line, at most QA_REQUEST_MAX bytes; a client
 * has one request open at a time and is not read from meanwhile; whoever sends nonsense is told so
 * and cut off.
 */
#include "accelerator/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "accelerator/watcher.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "telemetry/telemetry.h"

static const uint64_t accept_pause_ns = 100000000;

struct client {
    int fd; /* -1: free */
    int busy;
    uint64_t serial;
    size_t used;
    char request[QA_REQUEST_MAX];
};

struct qa_control {
    int fd, directory_fd;
    uint64_t serial;
    uint64_t accept_at; /* no connection is taken before; 0: at once */
    char *path;         /* LOG.sock */
    char *link;         /* another name for it; NULL: none */
    const char *name;   /* its last component */
    struct client clients[QA_CLIENTS_MAX];
};

/* Opens the directory of the log and sets `name` to the last component of `path`. */
static int open_directory(const char *path, const char **name)
{
    const char *slash = strrchr(path, '/');
    *name = slash ? slash + 1 : path;
    if (!slash)
        return open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    char *directory = qr_malloc((size_t)(slash - path) + 2);
    if (!directory) {
        errno = ENOMEM;
        return -1;
    }
    size_t length = slash == path ? 1 : (size_t)(slash - path);
    memcpy(directory, path, length);
    directory[length] = '\0';
    int fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    qr_free(directory);
    return fd;
}

static int bind_socket(struct qa_control *control)
{
    char name[64];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    /* a name no tree records, and no other keeper of this process takes */
    snprintf(name, sizeof name, ".%d.%d.qallow-tmp", (int)getpid(), control->fd);
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s",
             control->directory_fd, name);
    unlinkat(control->directory_fd, name, 0);
    if (fchmod(control->fd, 0600) < 0 ||
        bind(control->fd, (struct sockaddr *)&address, sizeof address) < 0)
        return -errno;
    if (listen(control->fd, QA_CLIENTS_MAX) < 0 ||
        fchmodat(control->directory_fd, name, 0600, 0) < 0 ||
        renameat(control->directory_fd, name, control->directory_fd, control->name) < 0) {
        int err = errno;
        unlinkat(control->directory_fd, name, 0);
        return -err;
    }
    return 0;
}

int qa_control_open(const char *log_path, struct qa_control **out)
{
    int result;
    size_t size = strlen(log_path) + sizeof ".sock";
    struct qa_control *control = qr_calloc(1, sizeof *control);
    if (!control)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the socket");
    control->fd = control->directory_fd = -1;
    for (size_t i = 0; i < QA_CLIENTS_MAX; i++)
        control->clients[i].fd = -1;
    control->path = qr_malloc(size);
    if (!control->path) {
        result = qr_fail(QALLOW_E_NO_MEMORY, "no memory for the socket");
        goto out;
    }
    snprintf(control->path, size, "%s.sock", log_path);
    control->directory_fd = open_directory(control->path, &control->name);
    control->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int err = control->directory_fd < 0 || control->fd < 0 ? -errno : bind_socket(control);
    result = err < 0 ? qr_fail_errno(-err, "%s", qr_quotez(control->path)) : 0;
out:
    if (result < 0) {
        control->name = NULL; /* nothing of ours to remove */
        qa_control_close(control);
    } else {
        *out = control;
    }
    return result;
}

static void drop(struct client *client)
{
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
    client->busy = 0;
    client->used = 0;
}

int qa_control_link(struct qa_control *control, const char *path)
{
    char *target = realpath(control->path, NULL);
    size_t size = strlen(path) + sizeof ".sock";
    control->link = qr_malloc(size);
    if (!target || !control->link) {
        free(target);
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the socket");
    }
    snprintf(control->link, size, "%s.sock", path);
    unlink(control->link);
    int result = symlink(target, control->link) < 0
                     ? qr_fail_errno(errno, "%s", qr_quotez(control->link))
                     : 0;
    free(target);
    return result;
}

void qa_control_unlink(struct qa_control *control)
{
    if (!control)
        return;
    if (control->link)
        unlink(control->link);
    qr_free(control->link);
    control->link = NULL;
    if (control->name && control->directory_fd >= 0)
        unlinkat(control->directory_fd, control->name, 0);
    control->name = NULL;
}

void qa_control_close(struct qa_control *control)
{
    if (!control)
        return;
    for (size_t i = 0; i < QA_CLIENTS_MAX; i++)
        drop(&control->clients[i]);
    qa_control_unlink(control);
    if (control->fd >= 0)
        close(control->fd);
    if (control->directory_fd >= 0)
        close(control->directory_fd);
    qr_free(control->path);
    qr_free(control);
}

const char *qa_control_path(const struct qa_control *control) { return control->path; }

size_t qa_control_poll(const struct qa_control *control, struct pollfd *fds)
{
    size_t n = 0, free_places = 0;
    for (size_t i = 0; i < QA_CLIENTS_MAX; i++) {
        const struct client *client = &control->clients[i];
        free_places += client->fd < 0;
        if (client->fd >= 0) /* a busy one is only watched for hanging up */
            fds[n++] = (struct pollfd){client->fd, client->busy ? 0 : POLLIN, 0};
    }
    if (free_places > 0 && !control->accept_at)
        fds[n++] = (struct pollfd){control->fd, POLLIN, 0};
    return n;
}

uint64_t qa_control_deadline(const struct qa_control *control)
{
    return control->accept_at ? control->accept_at : UINT64_MAX;
}

static int is_trusted(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           (peer.uid == geteuid() || peer.uid == 0);
}

/* No connection came. If that is for want of descriptors or memory the socket stays readable, so it
 * is left alone for a while; whoever connects waits in its queue. */
static void refuse_for_now(struct qa_control *control, int err)
{
    if (err == EAGAIN || err == EWOULDBLOCK || err == EINTR || err == ECONNABORTED)
        return;
    control->accept_at = qa_now_ns() + accept_pause_ns;
    qt_log(QT_WARN, "%s: requests have to wait: %s", qr_quotez(control->path), strerror(err));
}

static void accept_clients(struct qa_control *control)
{
    if (control->accept_at && qa_now_ns() < control->accept_at)
        return;
    control->accept_at = 0;
    for (size_t i = 0; i < QA_CLIENTS_MAX; i++) {
        struct client *client = &control->clients[i];
        if (client->fd >= 0)
            continue;
        int fd = accept4(control->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            refuse_for_now(control, errno);
            return;
        }
        if (!is_trusted(fd)) {
            close(fd);
            continue;
        }
        client->fd = fd;
        client->serial = ++control->serial;
    }
}

/* Receives into the client's buffer. Returns 1 when there is a whole line (its end is overwritten
 * by a NUL), 0 when not yet, -1 when the client is to be dropped. */
static int receive(struct client *client)
{
    for (;;) {
        char *end = memchr(client->request, '\n', client->used);
        if (end) {
            *end = '\0';
            return 1;
        }
        size_t room = sizeof client->request - client->used;
        ssize_t n = room ? recv(client->fd, client->request + client->used, room, 0) : 0;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return 0;
        if (n <= 0)
            return -1;
        client->used += (size_t)n;
    }
}

static void serve_client(struct qa_control *control, struct client *client,
                         void (*handle)(void *context, uint64_t client, const cJSON *request),
                         void *context)
{
    int got = receive(client);
    if (got == 0)
        return;
    if (got < 0) {
        drop(client);
        return;
    }
    uint64_t serial = client->serial;
    client->busy = 1;
    client->used = 0; /* one request, one answer: nothing may follow before it */
    cJSON *request = cJSON_Parse(client->request);
    if (cJSON_IsObject(request)) {
        handle(context, serial, request);
    } else {
        qa_control_reply(control, serial,
                         qa_reply_failed(QALLOW_E_ARGUMENT, "a request is one JSON object"));
        if (client->serial == serial)
            drop(client);
    }
    cJSON_Delete(request);
}

/* 1 if a client that waits for its answer has gone. */
static int has_hung_up(const struct client *client)
{
    struct pollfd p = {client->fd, 0, 0};
    return poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR | POLLNVAL);
}

void qa_control_serve(struct qa_control *control,
                      void (*handle)(void *context, uint64_t client, const cJSON *request),
                      void *context)
{
    accept_clients(control);
    for (size_t i = 0; i < QA_CLIENTS_MAX; i++) {
        struct client *client = &control->clients[i];
        if (client->fd >= 0 && client->busy && has_hung_up(client))
            drop(client);
        else if (client->fd >= 0 && !client->busy)
            serve_client(control, client, handle, context);
    }
}

void qa_control_reply(struct qa_control *control, uint64_t serial, cJSON *reply)
{
    struct client *client = NULL;
    for (size_t i = 0; i < QA_CLIENTS_MAX; i++)
        if (control->clients[i].fd >= 0 && control->clients[i].serial == serial)
            client = &control->clients[i];
    char *text = client && reply ? cJSON_PrintUnformatted(reply) : NULL;
    if (client && text) {
        struct iovec parts[] = {{text, strlen(text)}, {(char[]){'\n'}, 1}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        size_t length = parts[0].iov_len + 1;
        client->busy = 0; /* an answer fits into the socket's buffer, or the client is broken */
        if (sendmsg(client->fd, &message, MSG_NOSIGNAL) != (ssize_t)length)
            drop(client);
    } else if (client) {
        drop(client);
    }
    cJSON_free(text);
    cJSON_Delete(reply);
}

cJSON *qa_reply_ok(void)
{
    cJSON *reply = cJSON_CreateObject();
    cJSON_AddTrueToObject(reply, "ok");
    return reply;
}

cJSON *qa_reply_failed(int result, const char *message)
{
    cJSON *reply = cJSON_CreateObject();
    cJSON_AddFalseToObject(reply, "ok");
    cJSON_AddNumberToObject(reply, "error", result);
    cJSON_AddStringToObject(reply, "message", message);
    return reply;
}
