/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The user's command, as a child in a process group of its own, watched through a pidfd, so that no
 * signal handler is needed and no other child of the process is taken for it.
 */
#include "accelerator/runner.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/error.h"
#include "runtime/os.h"

enum { END_TIMEOUT_MS = 5000, VARIABLES = 3, VARIABLE_SIZE = 64 };

struct qa_runner {
    char *command, *root; /* root: "QALLOW_ROOT=..." */
    void (*notice)(void *context, const char *line);
    void *context;
    pid_t pid; /* 0: none runs */
    int fd;
    uint64_t wanted, running, last; /* epochs; wanted 0: none */
};

extern char **environ;

static void say(const struct qa_runner *runner, const char *what, const char *why)
{
    char line[512];
    snprintf(line, sizeof line, "--run: %s %s", what, why);
    if (runner->notice)
        runner->notice(runner->context, line);
}

static char *joined(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    char *text = qr_malloc(n + m + 1);
    if (text) {
        memcpy(text, a, n);
        memcpy(text + n, b, m + 1);
    }
    return text;
}

int qa_runner_create(const char *command, const char *root,
                     void (*notice)(void *context, const char *line), void *context,
                     struct qa_runner **out)
{
    struct qa_runner *runner = qr_calloc(1, sizeof *runner);
    if (runner) {
        *runner = (struct qa_runner){.command = joined(command, ""),
                                     .root = joined("QALLOW_ROOT=", root),
                                     .notice = notice,
                                     .context = context,
                                     .fd = -1};
    }
    if (!runner || !runner->command || !runner->root) {
        qa_runner_destroy(runner);
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the command");
    }
    *out = runner;
    return 0;
}

static int is_own(const char *variable)
{
    return strncmp(variable, "QALLOW_EPOCH=", 13) == 0 ||
           strncmp(variable, "QALLOW_SINCE=", 13) == 0 ||
           strncmp(variable, "QALLOW_ROOT=", 12) == 0;
}

/* The environment with our variables instead of those of the same name: which of two counts is
 * not the same for every program. NULL without memory. */
static char **environment(char *const own[VARIABLES])
{
    size_t count = 0, used = VARIABLES;
    while (environ && environ[count])
        count++;
    char **all = qr_calloc(count + VARIABLES + 1, sizeof *all);
    if (!all)
        return NULL;
    memcpy(all, own, VARIABLES * sizeof *all);
    for (size_t i = 0; i < count; i++)
        if (!is_own(environ[i]))
            all[used++] = environ[i];
    return all;
}

/* 0, or an errno. */
static int spawn(struct qa_runner *runner, char **variables)
{
    char shell[] = "sh", option[] = "-c";
    char *const arguments[] = {shell, option, runner->command, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, pipe;
    sigemptyset(&none);
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE); /* which this process may ignore */
    int err = posix_spawn_file_actions_init(&files);
    if (err)
        return err;
    err = posix_spawnattr_init(&attributes);
    if (err == 0) {
        err = posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        if (err == 0) /* standard output has the epochs, one a line */
            err = posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
        posix_spawnattr_setsigmask(&attributes, &none);
        posix_spawnattr_setsigdefault(&attributes, &pipe);
        posix_spawnattr_setpgroup(&attributes, 0);
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                  POSIX_SPAWN_SETPGROUP);
        if (err == 0)
            err = posix_spawn(&runner->pid, "/bin/sh", &files, &attributes, arguments, variables);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&files);
    return err;
}

static void start(struct qa_runner *runner)
{
    char epoch[VARIABLE_SIZE], since[VARIABLE_SIZE];
    snprintf(epoch, sizeof epoch, "QALLOW_EPOCH=%llu", (unsigned long long)runner->wanted);
    snprintf(since, sizeof since, "QALLOW_SINCE=%llu", (unsigned long long)runner->last);
    char *const own[VARIABLES] = {epoch, since, runner->root};
    char **variables = environment(own);
    runner->running = runner->wanted;
    runner->wanted = 0;
    int err = variables ? spawn(runner, variables) : ENOMEM;
    qr_free(variables);
    if (err) {
        runner->pid = 0;
        say(runner, "cannot be started:", strerror(err));
        return;
    }
    runner->fd = (int)syscall(SYS_pidfd_open, runner->pid, 0);
    if (runner->fd < 0) /* an old kernel: the run is waited for, so that there are never two */
        qa_runner_reap(runner);
}

void qa_runner_epoch(struct qa_runner *runner, uint64_t epoch)
{
    runner->wanted = epoch;
    if (!runner->pid)
        start(runner);
}

int qa_runner_fd(const struct qa_runner *runner) { return runner ? runner->fd : -1; }

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Collects the child; its wait status. */
static int collect(struct qa_runner *runner)
{
    int status = 0;
    pid_t pid;
    do
        pid = waitpid(runner->pid, &status, 0);
    while (pid < 0 && errno == EINTR);
    if (runner->fd >= 0)
        close(runner->fd);
    runner->fd = -1;
    runner->pid = 0;
    runner->last = runner->running;
    return pid < 0 ? 0 : status;
}

void qa_runner_reap(struct qa_runner *runner)
{
    char why[64];
    int status = collect(runner);
    if (WIFSIGNALED(status))
        snprintf(why, sizeof why, "by signal %d", WTERMSIG(status));
    else
        snprintf(why, sizeof why, "with status %d", WEXITSTATUS(status));
    if (status)
        say(runner, "ended", why);
    if (runner->wanted)
        start(runner);
}

/* Is the process of this number in the group, and not dead? */
static int lives_in(const char *number, pid_t group)
{
    char path[64], line[512], field[32]; /* "PID (NAME) STATE PARENT GROUP ..." */
    if (number[0] < '0' || number[0] > '9' ||
        (size_t)snprintf(path, sizeof path, "/proc/%s/stat", number) >= sizeof path)
        return 0;
    FILE *file = fopen(path, "re");
    if (!file)
        return 0; /* gone meanwhile */
    line[fread(line, 1, sizeof line - 1, file)] = '\0';
    fclose(file);
    const char *at = strrchr(line, ')'); /* the name may have anything in it */
    if (!at || strlen(at) < 5 || at[2] == 'Z' || at[2] == 'X')
        return 0;
    at += 4;
    at += strcspn(at, " ");
    snprintf(field, sizeof field, " %d ", (int)group);
    return strncmp(at, field, strlen(field)) == 0;
}

/* kill() finds the dead as well, as long as whoever is their parent now has not collected them,
 * which may be never where the first process of a container does not care. */
static int group_lives(pid_t group)
{
    const struct dirent *entry;
    int alive = 0;
    while (waitpid(-group, NULL, WNOHANG) > 0)
        ; /* we may be that first process */
    if (kill(-group, 0) < 0)
        return 0;
    DIR *processes = opendir("/proc");
    if (!processes)
        return 1;
    while (!alive && (entry = readdir(processes)))
        alive = lives_in(entry->d_name, group);
    closedir(processes);
    return alive;
}

/* Waits for the rest of the group, as far as five seconds reach, and then kills it. The shell often
 * ends at once, while what it started still cleans up. */
static void end_group(pid_t group, int64_t deadline_ms)
{
    const struct timespec pause = {0, 10000000};
    while (group_lives(group) && now_ms() < deadline_ms)
        nanosleep(&pause, NULL);
    kill(-group, SIGKILL);
}

void qa_runner_destroy(struct qa_runner *runner)
{
    if (!runner)
        return;
    if (runner->pid) {
        struct pollfd ended = {runner->fd, POLLIN, 0};
        pid_t group = runner->pid;
        int64_t deadline_ms = now_ms() + END_TIMEOUT_MS;
        kill(-group, SIGTERM);
        if (poll(&ended, 1, END_TIMEOUT_MS) == 0)
            kill(-group, SIGKILL);
        collect(runner);
        end_group(group, deadline_ms);
    }
    qr_free(runner->command);
    qr_free(runner->root);
    qr_free(runner);
}
