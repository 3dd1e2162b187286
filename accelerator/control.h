/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recorder's ear: a Unix socket beside the log (LOG.sock) on which other processes of the same
 * user ask for things. One JSON object a line in, one a line out. One thread.
 */
#ifndef QA_CONTROL_H
#define QA_CONTROL_H

#include <cjson/cJSON.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>

enum {
    QA_CLIENTS_MAX = 32,           /* at once; more wait to be accepted */
    QA_REQUEST_MAX = 4096,         /* bytes of a request */
    QA_POLL_MAX = QA_CLIENTS_MAX + 1,
};

struct qa_control;

/* Creates the socket, replacing one that was left behind. Only for the process that holds the
 * log's lock. */
int qa_control_open(const char *log_path, struct qa_control **control);
/* Makes PATH.sock a symlink to the socket, for who knows only the cache. It goes with it. */
int qa_control_link(struct qa_control *control, const char *path);
/* Removes the socket's name: nobody else can connect, requests that came in can still be answered.
 * Before the log's lock is given up, or it might be the next recorder's socket. NULL is legal. */
void qa_control_unlink(struct qa_control *control);
/* And closes it; unanswered clients see the end of the connection. */
void qa_control_close(struct qa_control *control);
/* LOG.sock */
const char *qa_control_path(const struct qa_control *control);

/* Fills in what to poll for; returns how many, at most QA_POLL_MAX. */
size_t qa_control_poll(const struct qa_control *control, struct pollfd *fds);
/* When to serve although nothing was polled: connections could not be taken and are tried again.
 * CLOCK_MONOTONIC nanoseconds; UINT64_MAX: never. */
uint64_t qa_control_deadline(const struct qa_control *control);
/* Takes in connections and requests. `handle` is called for each request and answers it, now or
 * later, with qa_control_reply(client). The request is freed afterwards. */
void qa_control_serve(struct qa_control *control,
                      void (*handle)(void *context, uint64_t client, const cJSON *request),
                      void *context);
/* Answers; frees `reply` (NULL, for want of memory, closes the connection). A client that has left
 * meanwhile is ignored. */
void qa_control_reply(struct qa_control *control, uint64_t client, cJSON *reply);
/* {"ok": true} to be filled in, and {"ok": false, "error": result, "message": detail}. */
cJSON *qa_reply_ok(void);
cJSON *qa_reply_failed(int result, const char *message);

#endif
