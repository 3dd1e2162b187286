/* SPDX-License-Identifier: Apache-2.0 */
/* `qallow vm --follow`: what the inputs hold comes from another log, or from standard input. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "interface/cmd_vm.h"
#include "runtime/bytes.h"
#include "runtime/error.h"
#include "runtime/os.h"

enum { FRAME_HEADER = 13 };

int vm_source_begin(const struct vm *vm, struct qv_session *session, const struct qv_input *inputs,
                    struct vm_source *source)
{
    *source = (struct vm_source){.session = session, .watch.notify = -1, .waits = !vm->once};
    if (!vm->follow)
        return 0;
    if (strcmp(vm->follow, "-") == 0) {
        source->reads = 1;
        return 0;
    }
    int rc = qv_follow_open(session, vm->follow, inputs, vm->inputs.count, &source->follow);
    return rc < 0 ? rc : qi_log_watch_begin(&source->watch, vm->follow);
}

void vm_source_end(struct vm_source *source)
{
    qv_follow_close(source->follow);
    qi_log_watch_end(&source->watch);
    qr_free(source->data);
}

/* --- standard input --- */

/* 1: all of it is there; 0: the stream ended before its first byte. */
static int read_all(uint8_t *bytes, size_t length)
{
    size_t done = 0;

    while (done < length) {
        struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN},
                                {.fd = qi_signal_fd(), .events = POLLIN}};
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return qr_fail_errno(errno, "standard input");
        int rc = qi_signal_check();
        if (rc < 0)
            return rc;
        ssize_t n = read(STDIN_FILENO, bytes + done, length - done);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return qr_fail_errno(errno, "standard input");
        if (n == 0 && done > 0)
            return qr_fail(QALLOW_E_SERIALIZATION, "it ends within a frame");
        if (n == 0)
            return 0;
        done += n > 0 ? (size_t)n : 0;
    }
    return 1;
}

/* One frame: as qv_session_take_frame(), or 2: there is none any more. */
static int take_frame(struct vm_source *source)
{
    uint8_t header[FRAME_HEADER];
    int rc = read_all(header, sizeof header);
    uint32_t length = rc == 1 ? qr_load32(header + 9) : 0;

    if (rc <= 0)
        return rc < 0 ? rc : 2;
    if (length > qv_session_frame_limit(source->session))
        return qr_fail(QALLOW_E_LIMIT, "a frame of %u bytes: no input takes so much", length);
    if (length > source->capacity) {
        uint8_t *grown = qr_realloc(source->data, length);
        if (!grown)
            return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a frame of %u bytes", length);
        source->data = grown;
        source->capacity = length;
    }
    rc = length ? read_all(source->data, length) : 1;
    if (rc == 0)
        rc = qr_fail(QALLOW_E_SERIALIZATION, "it ends within a frame");
    if (rc < 0)
        return rc;
    return qv_session_take_frame(source->session, header[0], source->data, length);
}

static int next_of_stream(struct vm_source *source)
{
    int rc = 0;

    while (rc == 0) {
        rc = take_frame(source);
        source->frames += rc == 0 || rc == 1;
    }
    if (rc < 0 && rc != QALLOW_E_INTERRUPTED && rc != QALLOW_E_FUNCTION)
        return qr_fail(rc, "standard input, frame %llu: %s", (unsigned long long)source->frames + 1,
                       qallow_error_detail());
    return rc == 2 ? 0 : rc;
}

/* --- a log --- */

int vm_source_next(const struct qi_context *context, struct vm_source *source)
{
    int rc = 0, more = 1;

    if (source->reads)
        return next_of_stream(source);
    if (!source->follow)
        return 1;
    while (rc == 0 && more) {
        qi_log_watch_arm(&source->watch);
        rc = qv_follow_next(source->follow);
        more = source->waits;
        if (rc == 0 && more) {
            more = qi_log_watch_wait(context, &source->watch);
            rc = more < 0 ? more : 0;
        }
    }
    return rc;
}
