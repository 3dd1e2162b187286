/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The asking side of the recorder's socket. The socket is opened with O_PATH and connected through
 * /proc/self/fd, so that its name may have any length.
 */
#include "accelerator/control_client.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime/error.h"
#include "runtime/os.h"

enum { REPLY_MAX = 1 << 20 };

static int nobody(const char *log_path)
{
    return qr_fail(QALLOW_E_UNAVAILABLE, "no recorder is running on %s", qr_quotez(log_path));
}

/* Connects to LOG.sock: a file descriptor or a QALLOW_E_*. */
static int connect_to(const char *log_path)
{
    int result, fd = -1, node = -1;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t size = strlen(log_path) + sizeof ".sock";
    char *path = qr_malloc(size);
    if (!path)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory to reach the recorder");
    snprintf(path, size, "%s.sock", log_path);
    node = open(path, O_PATH | O_CLOEXEC);
    if (node < 0) {
        result = errno == ENOENT || errno == ENOTDIR ? nobody(log_path)
                                                     : qr_fail_errno(errno, "%s", qr_quotez(path));
        goto out;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d", node);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        result = errno == ECONNREFUSED ? nobody(log_path)
                                       : qr_fail_errno(errno, "%s", qr_quotez(path));
        goto out;
    }
    result = fd;
    fd = -1;
out:
    if (fd >= 0)
        close(fd);
    if (node >= 0)
        close(node);
    qr_free(path);
    return result;
}

static int send_line(int fd, const char *text)
{
    struct iovec parts[] = {{(void *)(uintptr_t)text, strlen(text)}, {(char[]){'\n'}, 1}};
    for (size_t i = 0; i < 2; i++) {
        const char *at = parts[i].iov_base;
        for (size_t left = parts[i].iov_len; left > 0;) {
            ssize_t n = send(fd, at, left, MSG_NOSIGNAL);
            if (n < 0 && errno == EINTR)
                continue;
            if (n <= 0)
                return -1;
            at += n;
            left -= (size_t)n;
        }
    }
    return 0;
}

/* Reads up to a newline into *line (qr_malloc'ed, without it). 0, or -1 if the peer has gone. */
static int receive_line(int fd, char **line)
{
    size_t used = 0, size = 4096;
    char *text = qr_malloc(size);
    while (text) {
        ssize_t n = recv(fd, text + used, size - used, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        char *end = memchr(text + used, '\n', (size_t)n);
        used += (size_t)n;
        if (end) {
            *end = '\0';
            *line = text;
            return 0;
        }
        char *larger = used < size ? text : size < REPLY_MAX ? qr_realloc(text, size *= 2) : NULL;
        if (!larger)
            break;
        text = larger;
    }
    qr_free(text);
    return -1;
}

/* Turns {"ok": false, ...} into the error it stands for. */
static int result_of(const char *log_path, const char *reply)
{
    cJSON *json = cJSON_Parse(reply);
    int result = 0;
    if (!json) {
        result = qr_fail(QALLOW_E_SERIALIZATION, "%s: the recorder's answer is not JSON",
                         qr_quotez(log_path));
    } else if (!cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "ok"))) {
        const cJSON *error = cJSON_GetObjectItemCaseSensitive(json, "error");
        const char *text =
            cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "message"));
        int code = cJSON_IsNumber(error) && error->valueint < 0 ? error->valueint
                                                                 : QALLOW_E_SERIALIZATION;
        result = qr_fail(code, "%s", text ? text : "the recorder refused");
    }
    cJSON_Delete(json);
    return result;
}

int qa_control_request(const char *log_path, const char *request_json, char **reply_json)
{
    char *reply = NULL;
    int fd = connect_to(log_path);
    if (fd < 0)
        return fd;
    int result;
    if (send_line(fd, request_json) < 0 || receive_line(fd, &reply) < 0)
        result = qr_fail(QALLOW_E_UNAVAILABLE, "%s: the recorder ended before it answered",
                         qr_quotez(log_path));
    else
        result = result_of(log_path, reply);
    close(fd);
    if (result < 0)
        qr_free(reply);
    else
        *reply_json = reply;
    return result;
}
