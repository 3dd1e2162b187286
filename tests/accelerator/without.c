/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a command on a machine that lacks something: a seccomp filter answers system calls with an
 * error of choice, as a container's or an older kernel would.
 *
 *     without [CALL=ERROR]... -- COMMAND [ARGUMENT]...
 *
 * Exits with 77 if this machine allows no filter.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { RULE = 6, MAX_RULES = 8 };

/* A call, and bits that its second argument must have (a word of 32 bits); 0: whatever it is. */
static const struct {
    const char *name;
    uint32_t number, bits;
} calls[] = {
    {"inotify_init1", SYS_inotify_init1, 0},
    {"inotify_add_watch", SYS_inotify_add_watch, 0},
    {"userfaultfd", SYS_userfaultfd, 0},
    {"fdatasync", SYS_fdatasync, 0},
    {"punch_hole", SYS_fallocate, FALLOC_FL_PUNCH_HOLE},
    {"pagemap_scan", SYS_ioctl, 0xc0606610},
};
static const struct {
    const char *name;
    uint32_t number;
} errors[] = {
    {"EMFILE", EMFILE}, {"ENOSPC", ENOSPC}, {"ENOSYS", ENOSYS},         {"EPERM", EPERM},
    {"EINVAL", EINVAL}, {"ENOTTY", ENOTTY}, {"EOPNOTSUPP", EOPNOTSUPP},
};

/* "CALL=ERROR" as six instructions. 0 if it means nothing. */
static int make_rule(const char *text, struct sock_filter *rule)
{
    const uint32_t number = offsetof(struct seccomp_data, nr);
    const uint32_t argument = offsetof(struct seccomp_data, args) + sizeof(uint64_t);
    size_t call = 0, error = 0, length = strcspn(text, "=");
    while (call < sizeof calls / sizeof *calls &&
           (strlen(calls[call].name) != length || strncmp(calls[call].name, text, length) != 0))
        call++;
    while (error < sizeof errors / sizeof *errors && text[length] &&
           strcmp(errors[error].name, text + length + 1) != 0)
        error++;
    if (call == sizeof calls / sizeof *calls || error == sizeof errors / sizeof *errors)
        return 0;
    const uint32_t bits = calls[call].bits;
    const struct sock_filter code[RULE] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, number),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[call].number, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, argument),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, bits),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, bits, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | errors[error].number),
    };
    memcpy(rule, code, sizeof code);
    return 1;
}

int main(int argc, char **argv)
{
    struct sock_filter filter[MAX_RULES * RULE + 1];
    struct sock_fprog program = {0, filter};
    int i = 1;
    for (; i < argc && strcmp(argv[i], "--") != 0 && i <= MAX_RULES; i++) {
        if (!make_rule(argv[i], filter + program.len)) {
            fprintf(stderr, "without: what is %s?\n", argv[i]);
            return 64;
        }
        program.len += RULE;
    }
    if (i >= argc - 1 || strcmp(argv[i], "--") != 0)
        return 64;
    filter[program.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) {
        perror("without: seccomp");
        return 77;
    }
    execvp(argv[i + 1], argv + i + 1);
    perror(argv[i + 1]);
    return 127;
}
