/* SPDX-License-Identifier: Apache-2.0 */
/* Child processes, see process.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/process.h"
#include "runtime/error.h"

/* In the child; only calls that are safe after fork in a process with threads. */
static void become(const char *const *argv, const char *directory, int in, int out)
{
    int nowhere = open("/dev/null", O_WRONLY);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_DFL);
    if (dup2(in, 0) == 0 && dup2(out, 1) == 1 && dup2(nowhere, 2) == 2 && chdir(directory) == 0)
        execv(argv[0], (char *const *)argv);
    raise(SIGKILL);
}

int qm_process_start(const char *const *argv, const char *directory, struct qm_process *process)
{
    int in[2], out[2];
    *process = (struct qm_process){.in = -1, .out = -1};
    if (pipe2(in, O_CLOEXEC) != 0)
        return qr_fail_errno(errno, "a pipe");
    if (pipe2(out, O_CLOEXEC) != 0) {
        close(in[0]);
        close(in[1]);
        return qr_fail_errno(errno, "a pipe");
    }
    pid_t pid = fork();
    int error = errno;
    if (pid == 0)
        become(argv, directory, in[0], out[1]);
    close(in[0]);
    close(out[1]);
    *process = (struct qm_process){pid > 0 ? pid : 0, in[1], out[0]};
    if (pid > 0)
        return 0;
    qm_process_kill(process);
    return qr_fail_errno(error, "%s", qr_quotez(argv[0]));
}

int qm_process_write(struct qm_process *process, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length > 0) {
        ssize_t n = write(process->in, at, length);
        if (n < 0 && errno != EINTR)
            return qr_fail_errno(errno, "writing to a child process");
        at += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int qm_process_read(struct qm_process *process, void *bytes, size_t length)
{
    char *at = bytes;
    while (length > 0) {
        ssize_t n = read(process->out, at, length);
        if (n == 0)
            return qr_fail(QALLOW_E_IO, "a child process ended too early");
        if (n < 0 && errno != EINTR)
            return qr_fail_errno(errno, "reading from a child process");
        at += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static void close_ends(struct qm_process *process)
{
    if (process->in >= 0)
        close(process->in);
    if (process->out >= 0)
        close(process->out);
    process->in = process->out = -1;
}

static int reap(struct qm_process *process, int *status)
{
    pid_t pid;
    do
        pid = waitpid(process->pid, status, 0);
    while (pid < 0 && errno == EINTR);
    int error = errno;
    process->pid = 0;
    return pid < 0 ? qr_fail_errno(error, "a child process") : 0;
}

int qm_process_wait(struct qm_process *process)
{
    char rest[4096];
    int status = 0;
    if (process->in >= 0)
        close(process->in);
    process->in = -1;
    while (process->out >= 0 && read(process->out, rest, sizeof rest) > 0)
        ;
    int rc = reap(process, &status);
    close_ends(process);
    if (rc == 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
        rc = qr_fail(QALLOW_E_UNAVAILABLE, "a child process failed (status %d)", status);
    return rc;
}

void qm_process_kill(struct qm_process *process)
{
    int status;
    if (process->pid > 0) {
        kill(process->pid, SIGKILL);
        reap(process, &status);
        close_ends(process);
    } else if (process->in > 0) {
        close_ends(process);
    }
    process->pid = 0;
}
