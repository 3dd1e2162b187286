/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probes of what watching a tree needs: a file system whose changes are events, an inotify
 * instance, a watch for each directory. Limits are read where the kernel keeps them; whether an
 * instance and a watch can be had is found out by taking one.
 *
 * Two sysctls limit inotify, fs.inotify.max_user_* and (in every user namespace, which is how
 * containers without root have their own) user.max_inotify_*; the lower one holds.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "accelerator/capability_internal.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "sources/path.h"

/* --- file systems --- */

const struct qa_file_system *qa_file_system_of(unsigned long type)
{
    static const struct qa_file_system table[] = {
        {0xef53, "ext4", 0},
        {0x58465342, "xfs", 0},
        {0x9123683e, "btrfs", 0},
        {0x2fc12fc1, "zfs", 0},
        {0xf2f52010, "f2fs", 0},
        {0xca451a4e, "bcachefs", 0},
        {0x794c7630, "overlayfs", 0},
        {0xf15f, "ecryptfs", 0},
        {0x3153464a, "jfs", 0},
        {0x3434, "nilfs2", 0},
        {0x73717368, "squashfs", 0},
        {0xe0f5e1e2, "erofs", 0},
        {0x7366746e, "ntfs3", 0},
        {TMPFS_MAGIC, "tmpfs", QA_FS_VOLATILE},
        {0x858458f6, "ramfs", QA_FS_VOLATILE},
        {0x4d44, "vfat", QA_FS_COARSE},
        {0x2011bab0, "exfat", QA_FS_COARSE},
        {NFS_SUPER_MAGIC, "NFS", QA_FS_REMOTE},
        {SMB_SUPER_MAGIC, "SMB", QA_FS_REMOTE},
        {0xff534d42, "CIFS", QA_FS_REMOTE},
        {0xfe534d42, "SMB", QA_FS_REMOTE},
        {0x65735546, "FUSE", QA_FS_REMOTE}, /* sshfs, rclone, virtiofs, Docker's bind mounts */
        {V9FS_MAGIC, "9p", QA_FS_REMOTE},   /* WSL's and virtual machines' shared folders */
        {0x00c36400, "CephFS", QA_FS_REMOTE},
        {0x5346414f, "AFS", QA_FS_REMOTE},
        {0x6b414653, "AFS", QA_FS_REMOTE},
        {0x73757245, "Coda", QA_FS_REMOTE},
        {0x47504653, "GPFS", QA_FS_REMOTE},
        {0x0bd00bd0, "Lustre", QA_FS_REMOTE},
        {0x01161970, "GFS2", QA_FS_REMOTE},
        {0x7461636f, "OCFS2", QA_FS_REMOTE},
        {0x19830326, "BeeGFS", QA_FS_REMOTE},
        {0xaad7aaea, "PanFS", QA_FS_REMOTE},
        {0x786f4256, "vboxsf", QA_FS_REMOTE},
        {0xbacbacbc, "vmhgfs", QA_FS_REMOTE},
        {0x7c7c6673, "prl_fs", QA_FS_REMOTE},
        {0x6a656a63, "fakeowner", QA_FS_REMOTE}, /* Docker Desktop's bind mounts */
        {0x53464846, "WSL's", QA_FS_REMOTE},
        {PROC_SUPER_MAGIC, "proc", QA_FS_MADE_UP},
        {SYSFS_MAGIC, "sysfs", QA_FS_MADE_UP},
        {0x64626720, "debugfs", QA_FS_MADE_UP},
        {0x74726163, "tracefs", QA_FS_MADE_UP},
        {0x27e0eb, "cgroup", QA_FS_MADE_UP},
        {0x63677270, "cgroup2", QA_FS_MADE_UP},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].type == (type & 0xffffffff))
            return &table[i];
    return NULL;
}

int qa_file_system_needs_polling(const struct qa_file_system *file_system)
{
    return file_system && file_system->traits & (QA_FS_REMOTE | QA_FS_MADE_UP);
}

void qa_probe_file_system(const struct qa_inotify *inotify, int fd, const char *path,
                          struct qa_capability *found)
{
    unsigned long type;
    int err = inotify->file_system(inotify->context, fd, &type);
    const struct qa_file_system *fs = err < 0 ? NULL : qa_file_system_of(type);
    if (err < 0)
        qa_found(found, QA_WARN, 0, NULL, "%s: its file system does not say what it is: %s",
                 qr_quotez(path), strerror(-err));
    else if (!fs)
        qa_found(
            found, QA_WARN, 0, "if changes are missed, use --poll",
            "%s is on a file system not known to qallow (type %#lx); it is watched like others",
            qr_quotez(path), type);
    else if (fs->traits & QA_FS_REMOTE)
        qa_found(found, QA_WARN, QALLOW_E_UNAVAILABLE,
                 "it is compared at intervals; --no-poll watches it all the same, for trees that "
                 "nobody changes elsewhere",
                 "%s is on %s, where changes made elsewhere are no events", qr_quotez(path),
                 fs->name);
    else if (fs->traits & QA_FS_MADE_UP)
        qa_found(found, QA_WARN, QALLOW_E_UNAVAILABLE, "it is compared at intervals",
                 "%s is on %s, whose files the kernel makes up when they are read: that they "
                 "change is no event",
                 qr_quotez(path), fs->name);
    else if (fs->traits & QA_FS_COARSE)
        qa_found(found, QA_WARN, 0, "keep the tree on ext4, xfs or btrfs",
                 "%s is on %s, whose time stamps are two seconds apart: what changed twice in that "
                 "time while nobody watched may be missed",
                 qr_quotez(path), fs->name);
    else
        qa_found(found, QA_PASS, 0, NULL, "%s is on %s: every change is an event", qr_quotez(path),
                 fs->name);
}

/* --- limits --- */

static int read_number(const char *path, uint64_t *value)
{
    char text[64] = "", *end = text;
    FILE *file = fopen(path, "re");
    int ok = file && fgets(text, sizeof text, file) != NULL;
    if (file)
        fclose(file);
    if (!ok || text[0] < '0' || text[0] > '9')
        return 0;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return errno == 0 && (*end == '\n' || *end == '\0');
}

int qa_inotify_limit(enum qa_inotify_limit which, uint64_t *limit, const char **sysctl)
{
    static const struct {
        const char *path, *sysctl;
    } machine[] =
        {
            {"/proc/sys/fs/inotify/max_user_instances", "fs.inotify.max_user_instances"},
            {"/proc/sys/fs/inotify/max_user_watches", "fs.inotify.max_user_watches"},
            {"/proc/sys/fs/inotify/max_queued_events", "fs.inotify.max_queued_events"},
        },
      namespace[] = {
          {"/proc/sys/user/max_inotify_instances", "user.max_inotify_instances"},
          {"/proc/sys/user/max_inotify_watches", "user.max_inotify_watches"},
      };
    uint64_t here;
    int known = read_number(machine[which].path, limit);
    *sysctl = machine[which].sysctl;
    if (which != QA_INOTIFY_QUEUE && read_number(namespace[which].path, &here) &&
        (!known || here < *limit)) {
        *limit = here;
        *sysctl = namespace[which].sysctl;
        known = 1;
    }
    return known;
}

/* A power of two of at least `limit`, and what is usual on machines that watch much. */
static uint64_t raised(uint64_t limit, uint64_t usual)
{
    while (usual < limit && usual <= UINT64_MAX / 2)
        usual *= 2;
    return usual;
}

enum {
    USUAL_INSTANCES = 1024,
    USUAL_WATCHES = 1 << 20,
    USUAL_QUEUE = 1 << 16,
    ENOUGH_QUEUE = 1 << 14, /* what kernels come with */
};

static void remedy_for(enum qa_inotify_limit which, uint64_t missing, char *remedy, size_t size)
{
    static const uint64_t usual[] = {USUAL_INSTANCES, USUAL_WATCHES, USUAL_QUEUE};
    const char *sysctl;
    uint64_t limit;
    if (!qa_inotify_limit(which, &limit, &sysctl))
        limit = 0;
    snprintf(remedy, size, "raise it with: sysctl %s=%llu", sysctl,
             (unsigned long long)raised(limit + missing, usual[which]));
}

void qa_explain_watch_limit(uint64_t need, uint64_t have, struct qa_capability *found)
{
    char remedy[sizeof found->remedy];
    remedy_for(QA_INOTIFY_WATCHES, need - have, remedy, sizeof remedy);
    qa_found(found, QA_WARN, QALLOW_E_LIMIT, remedy,
             "the limit of inotify watches is reached: %llu of %llu directories are watched, the "
             "others are compared every second",
             (unsigned long long)have, (unsigned long long)need);
}

/* One open file of a process: `path` is /proc/PID/fd/N. */
static int is_inotify(const char *path)
{
    char target[32];
    ssize_t n = readlink(path, target, sizeof target - 1);
    target[n < 0 ? 0 : n] = '\0';
    return strcmp(target, "anon_inode:inotify") == 0 || strcmp(target, "inotify") == 0;
}

static uint64_t watches_of(const char *fdinfo)
{
    char line[256];
    uint64_t watches = 0;
    FILE *file = fopen(fdinfo, "re");
    while (file && fgets(line, sizeof line, file))
        watches += strncmp(line, "inotify ", 8) == 0;
    if (file)
        fclose(file);
    return watches;
}

static void add_use_of(const char *pid, struct qa_inotify_use *use)
{
    char path[2 * NAME_MAX + 32];
    const struct dirent *entry;
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *files = opendir(path);
    while (files && (entry = readdir(files))) {
        snprintf(path, sizeof path, "/proc/%s/fd/%s", pid, entry->d_name);
        if (!is_inotify(path))
            continue;
        snprintf(path, sizeof path, "/proc/%s/fdinfo/%s", pid, entry->d_name);
        use->instances++;
        use->watches += watches_of(path);
    }
    if (files)
        closedir(files);
}

void qa_inotify_use(struct qa_inotify_use *use)
{
    char path[NAME_MAX + 16];
    const struct dirent *process;
    struct stat st;
    DIR *proc = opendir("/proc");
    *use = (struct qa_inotify_use){0, 0};
    while (proc && (process = readdir(proc))) {
        snprintf(path, sizeof path, "/proc/%s", process->d_name);
        if (process->d_name[0] >= '0' && process->d_name[0] <= '9' && stat(path, &st) == 0 &&
            st.st_uid == geteuid())
            add_use_of(process->d_name, use);
    }
    if (proc)
        closedir(proc);
}

static void probe_limit(enum qa_inotify_limit which, uint64_t used, uint64_t needed,
                        struct qa_capability *found)
{
    char remedy[sizeof found->remedy], who[96];
    const char *sysctl;
    uint64_t limit;
    int enough, known = qa_inotify_limit(which, &limit, &sysctl);
    if (!known) {
        qa_found(found, QA_WARN, 0, "mount /proc", "%s cannot be read", sysctl);
        return;
    }
    enough = used + needed <= limit;
    remedy_for(which, enough ? 0 : used + needed - limit, remedy, sizeof remedy);
    if (which == QA_INOTIFY_INSTANCES)
        snprintf(who, sizeof who, "each watched tree takes one");
    else if (needed == 0)
        snprintf(who, sizeof who, "each directory takes one");
    else
        snprintf(who, sizeof who, "the tree has %llu directories and each takes one",
                 (unsigned long long)needed);
    qa_found(found, enough ? QA_PASS : QA_WARN, enough ? 0 : QALLOW_E_LIMIT, remedy,
             "%llu of %llu used, %s%s", (unsigned long long)used, (unsigned long long)limit, who,
             enough ? "" : ": what is beyond the limit is compared at intervals");
}

void qa_probe_inotify_instances(const struct qa_inotify_use *use, struct qa_capability *found)
{
    probe_limit(QA_INOTIFY_INSTANCES, use->instances, 1, found);
}

void qa_probe_inotify_watches(const struct qa_inotify_use *use, uint64_t directories,
                              struct qa_capability *found)
{
    probe_limit(QA_INOTIFY_WATCHES, use->watches, directories, found);
}

void qa_probe_inotify_queue(struct qa_capability *found)
{
    char remedy[sizeof found->remedy];
    const char *sysctl;
    uint64_t limit;
    remedy_for(QA_INOTIFY_QUEUE, 0, remedy, sizeof remedy);
    if (qa_inotify_limit(QA_INOTIFY_QUEUE, &limit, &sysctl))
        qa_found(found, limit < ENOUGH_QUEUE ? QA_WARN : QA_PASS, 0, remedy,
                 "%llu events; when more are waiting the tree is read again",
                 (unsigned long long)limit);
    else
        qa_found(found, QA_WARN, 0, "mount /proc", "%s cannot be read", sysctl);
}

/* --- an instance, a watch --- */

/* EMFILE stands for two limits; the other one stops any descriptor. */
static int descriptors_are_used_up(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd < 0 && errno == EMFILE;
}

int qa_open_inotify(const struct qa_inotify *inotify, struct qa_capability *found)
{
    static const char polled[] = "the tree is compared at intervals";
    char remedy[sizeof found->remedy];
    int fd = inotify->open(inotify->context);
    if (fd >= 0) {
        qa_found(found, QA_PASS, 0, NULL, "directories can be watched");
        return fd;
    }
    if (fd == -EMFILE && descriptors_are_used_up()) {
        qa_found(found, QA_WARN, QALLOW_E_LIMIT, "raise it with: ulimit -n 4096",
                 "cannot watch for changes: the process may open no more files; %s", polled);
    } else if (fd == -EMFILE) {
        remedy_for(QA_INOTIFY_INSTANCES, 1, remedy, sizeof remedy);
        qa_found(found, QA_WARN, QALLOW_E_LIMIT, remedy,
                 "cannot watch for changes: the limit of inotify instances is reached; %s", polled);
    } else {
        qa_found(found, QA_WARN, fd == -ENOMEM ? QALLOW_E_LIMIT : QALLOW_E_UNAVAILABLE,
                 fd == -ENOMEM ? "give the process more memory"
                               : "allow inotify_init1, which a container or sandbox may forbid",
                 "cannot watch for changes: %s; %s", strerror(-fd), polled);
    }
    return -1;
}

void qa_probe_inotify(const struct qa_inotify *inotify, int fd, struct qa_capability *found)
{
    char path[40];
    int instance = qa_open_inotify(inotify, found);
    if (instance < 0)
        return;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int watch = inotify->add(inotify->context, instance, path, IN_ONLYDIR | IN_CREATE);
    if (watch == -ENOSPC)
        qa_explain_watch_limit(1, 0, found);
    else if (watch < 0)
        qa_found(found, QA_WARN, QALLOW_E_UNAVAILABLE, "mount /proc, and allow reading the tree",
                 "no directory can be watched: %s; the tree is compared at intervals",
                 strerror(-watch));
    close(instance);
}

/* --- how large the tree is --- */

/* Directories that are still to be read, relative to the root. */
struct stack {
    char **paths;
    size_t count, capacity;
};

/* Takes the path over. */
static int push(struct stack *stack, char *path)
{
    if (!path || QR_GROW(stack->paths, stack->count, stack->capacity) < 0) {
        qr_free(path);
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for looking at the tree");
    }
    stack->paths[stack->count++] = path;
    return 0;
}

static int count_entry(struct stack *stack, int root_fd, const char *directory, const char *name,
                       unsigned char type, struct qa_tree_size *size)
{
    struct stat st;
    char *path = qs_path_join(directory, name);
    if (!path)
        return push(stack, NULL);
    if (type == DT_UNKNOWN && qs_stat_beneath(root_fd, path, &st) == 0)
        type = S_ISDIR(st.st_mode) ? DT_DIR : DT_REG;
    if (type == DT_DIR && strcmp(name, ".git") != 0)
        return push(stack, path);
    if (type == DT_REG || type == DT_LNK) {
        size->files++;
        size->path_bytes += strlen(path);
    }
    qr_free(path);
    return 0;
}

static int count_directory(struct stack *stack, int root_fd, dev_t device, const char *path,
                           struct qa_tree_size *size)
{
    struct qs_names names = {0};
    struct stat st;
    int fd = qs_open_beneath(root_fd, path, O_RDONLY | O_DIRECTORY, 0);
    int result = 0;
    if (fd < 0 || fstat(fd, &st) < 0) {
        size->unreadable++;
    } else if (st.st_dev == device) {
        size->directories++;
        result = qs_names_read(&names, fd);
        size->unreadable += result == -1;
    }
    const char *at = names.bytes;
    for (size_t i = 0; i < names.count && result == 0; i++, at += strlen(at) + 1) {
        unsigned char type = (unsigned char)*at++;
        result = count_entry(stack, root_fd, path, at, type, size);
    }
    qs_names_finish(&names);
    if (fd >= 0)
        close(fd);
    return result == -1 ? 0 : result;
}

int qa_tree_size(int root_fd, struct qa_tree_size *size)
{
    struct stack stack = {0};
    struct stat st;
    *size = (struct qa_tree_size){0};
    if (fstat(root_fd, &st) < 0)
        return qr_fail_errno(errno, "the tree");
    int result = push(&stack, qs_path_join("", ""));
    while (result == 0 && stack.count) {
        char *path = stack.paths[--stack.count];
        result = count_directory(&stack, root_fd, st.st_dev, path, size);
        qr_free(path);
    }
    while (stack.count)
        qr_free(stack.paths[--stack.count]);
    qr_free(stack.paths);
    return result;
}
