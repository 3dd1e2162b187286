/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow doctor`: is this machine fit to record, and if not, what to do about it. Each check tries
 * the thing itself where it can, rather than reading about it.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "backend/kernels.h"
#include "interface/commands.h"
#include "interface/report.h"
#include "runtime/error.h"

enum verdict { PASS, WARN, FAIL };

struct doctor_options {
    const char *path;
};

struct doctor {
    const struct qi_context *context;
    cJSON *checks;
    int worst_status; /* exit status of the worst FAIL */
    int counts[3];
};

/* One line; `remedy` may be NULL. `status` is the exit status if it is a FAIL. */
static void say(struct doctor *d, enum verdict verdict, int status, const char *name,
                const char *remedy, const char *format, ...)
    __attribute__((format(printf, 6, 7)));
static void say(struct doctor *d, enum verdict verdict, int status, const char *name,
                const char *remedy, const char *format, ...)
{
    static const char *const words[] = {"PASS", "WARN", "FAIL"};
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    d->counts[verdict]++;
    if (verdict == FAIL && d->worst_status == 0)
        d->worst_status = status;
    if (d->context->json) {
        cJSON *check = cJSON_CreateObject();
        cJSON_AddStringToObject(check, "check", name);
        cJSON_AddStringToObject(check, "verdict", words[verdict]);
        cJSON_AddStringToObject(check, "text", text);
        if (remedy && verdict != PASS)
            cJSON_AddStringToObject(check, "remedy", remedy);
        cJSON_AddItemToArray(d->checks, check);
        return;
    }
    printf("%s  %-18s %s\n", words[verdict], name, text);
    if (remedy && verdict != PASS)
        printf("      %-18s %s\n", "", remedy);
}

/* --- inotify --- */

static int read_number(const char *path, uint64_t *value)
{
    char text[64] = "";
    FILE *file = fopen(path, "re");
    int ok = file && fgets(text, sizeof text, file) != NULL;
    if (file)
        fclose(file);
    text[strcspn(text, "\n")] = '\0';
    return ok && !qi_parse_number(text, value);
}

/* Counts this user's inotify instances and watches, as far as /proc shows them. */
static void count_inotify(uint64_t *instances, uint64_t *watches)
{
    DIR *proc = opendir("/proc");
    struct dirent *process, *entry;

    *instances = *watches = 0;
    while (proc && (process = readdir(proc)) != NULL) {
        char path[64 + sizeof entry->d_name], line[256];
        struct stat st;
        if (process->d_name[0] < '0' || process->d_name[0] > '9')
            continue;
        snprintf(path, sizeof path, "/proc/%s/fdinfo", process->d_name);
        DIR *fds = stat(path, &st) == 0 && st.st_uid == getuid() ? opendir(path) : NULL;
        while (fds && (entry = readdir(fds)) != NULL) {
            snprintf(path, sizeof path, "/proc/%.20s/fd/%.20s", process->d_name, entry->d_name);
            ssize_t n = readlink(path, line, sizeof line - 1);
            if (n < 0 || strncmp(line, "anon_inode:inotify", (size_t)n) != 0)
                continue;
            ++*instances;
            snprintf(path, sizeof path, "/proc/%.20s/fdinfo/%.20s", process->d_name,
                     entry->d_name);
            FILE *info = fopen(path, "re");
            while (info && fgets(line, sizeof line, info))
                *watches += strncmp(line, "inotify ", 8) == 0;
            if (info)
                fclose(info);
        }
        if (fds)
            closedir(fds);
    }
    if (proc)
        closedir(proc);
}

static void check_limit(struct doctor *d, const char *name, const char *path, uint64_t used,
                        uint64_t enough, const char *meaning, const char *remedy)
{
    uint64_t limit;

    if (!read_number(path, &limit))
        say(d, WARN, 0, name, NULL, "%s cannot be read", path);
    else
        say(d, limit < enough || used + limit / 10 > limit ? WARN : PASS, 0, name, remedy,
            "%llu of %llu used; %s", (unsigned long long)used, (unsigned long long)limit, meaning);
}

static void check_inotify(struct doctor *d)
{
    uint64_t instances, watches, queue;
    int fd = inotify_init1(IN_CLOEXEC);

    if (fd < 0)
        say(d, FAIL, errno == EMFILE ? QI_SYSTEM_LIMIT : QI_UNAVAILABLE, "inotify",
            errno == EMFILE ? "sysctl fs.inotify.max_user_instances=1024"
                            : "record with --once instead of watching",
            "cannot be used: %s", strerror(errno));
    else if (inotify_add_watch(fd, "/", IN_ONLYDIR | IN_CREATE) < 0)
        say(d, FAIL, QI_SYSTEM_LIMIT, "inotify", "sysctl fs.inotify.max_user_watches=1048576",
            "no directory can be watched: %s", strerror(errno));
    else
        say(d, PASS, 0, "inotify", NULL, "directories can be watched");
    if (fd >= 0)
        close(fd);
    count_inotify(&instances, &watches);
    check_limit(d, "inotify instances", "/proc/sys/fs/inotify/max_user_instances", instances, 16,
                "each recorder takes one", "sysctl fs.inotify.max_user_instances=1024");
    check_limit(d, "inotify watches", "/proc/sys/fs/inotify/max_user_watches", watches, 8192,
                "each directory takes one", "sysctl fs.inotify.max_user_watches=1048576");
    if (read_number("/proc/sys/fs/inotify/max_queued_events", &queue))
        say(d, queue < 16384 ? WARN : PASS, 0, "inotify queue",
            "sysctl fs.inotify.max_queued_events=65536",
            "%llu events; when more are waiting the tree is read again", (unsigned long long)queue);
}

/* --- the tree --- */

static const struct {
    long magic;
    const char *name;
    enum verdict verdict;
} file_systems[] = {
    {0xEF53, "ext4", PASS},       {0x58465342, "xfs", PASS},     {0x9123683E, "btrfs", PASS},
    {0x01021994, "tmpfs", PASS},  {0x794c7630, "overlayfs", PASS}, {0x2fc12fc1, "zfs", PASS},
    {0xF2F52010, "f2fs", PASS},   {0xca451a4e, "bcachefs", PASS},
    {0x6969, "nfs", WARN},        {0xFF534D42, "cifs", WARN},    {0xFE534D42, "smb2", WARN},
    {0x65735546, "fuse", WARN},   {0x01021997, "9p", WARN},      {0x00c36400, "ceph", WARN},
    {0x4d44, "vfat", WARN},       {0x47504653, "gpfs", WARN},    {0x0BD00BD0, "lustre", WARN},
    {0x6a656a63, "virtiofs", WARN},
};

static void check_file_system(struct doctor *d, const char *name, const char *path)
{
    struct statfs fs;

    if (statfs(path, &fs) != 0) {
        say(d, FAIL, QI_UNAVAILABLE, name, NULL, "%s: %s", qr_quotez(path), strerror(errno));
        return;
    }
    for (size_t i = 0; i < sizeof file_systems / sizeof *file_systems; i++)
        if ((unsigned long)file_systems[i].magic == ((unsigned long)fs.f_type & 0xffffffff)) {
            say(d, file_systems[i].verdict, 0, name,
                "changes by other machines cause no events: use --sweep or --once",
                "%s is on %s", qr_quotez(path), file_systems[i].name);
            return;
        }
    say(d, WARN, 0, name, "if recording misses changes, use --once",
        "%s is on a file system not known to qallow (type %#lx)", qr_quotez(path),
        (unsigned long)fs.f_type);
}

/* --- the log's directory --- */

static void check_sync_and_punch(struct doctor *d, int fd, const char *directory)
{
    static const char block[64 << 10] = "qallow";
    struct stat st;

    if (pwrite(fd, block, sizeof block, 0) != (ssize_t)sizeof block) {
        say(d, FAIL, QI_SYSTEM_LIMIT, "log: write", "make room", "%s: %s", qr_quotez(directory),
            strerror(errno));
        return;
    }
    if (fdatasync(fd) != 0)
        say(d, FAIL, QI_UNAVAILABLE, "log: sync", "keep the log on another file system",
            "fdatasync: %s: nothing can be made durable", strerror(errno));
    else
        say(d, PASS, 0, "log: sync", NULL, "fdatasync works");
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, sizeof block) != 0 ||
        fstat(fd, &st) != 0)
        say(d, WARN, 0, "log: punch holes", "keep the log on ext4, xfs, btrfs or tmpfs",
            "%s: pruning will free no space", strerror(errno));
    else
        say(d, PASS, 0, "log: punch holes", NULL, "pruning gives space back");
}

static void check_log_directory(struct doctor *d, const char *directory)
{
    char path[4200], size[QI_TEXT_MAX];
    struct statvfs fs;

    check_file_system(d, "log: file system", directory);
    if (statvfs(directory, &fs) == 0) {
        uint64_t available = (uint64_t)fs.f_bavail * fs.f_frsize;
        say(d, available < 64 << 20 ? FAIL : available < (uint64_t)1 << 30 ? WARN : PASS,
            QI_SYSTEM_LIMIT, "log: free space", "make room, or limit the log with --keep-bytes",
            "%s", qi_format_size(available, size));
    }
    if (snprintf(path, sizeof path, "%s/.qallow-doctor-XXXXXX", directory) >= (int)sizeof path)
        return;
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0) {
        say(d, FAIL, QI_UNAVAILABLE, "log: write", "keep the log where you may write",
            "no file can be made in %s: %s", qr_quotez(directory), strerror(errno));
        return;
    }
    unlink(path);
    check_sync_and_punch(d, fd, directory);
    close(fd);
}

/* --- the machine --- */

static void check_cpu(struct doctor *d)
{
    uint32_t flags = qb_cpu_detect();

    say(d, PASS, 0, "cpu", NULL, "%s%s; kernels in use: %s",
        flags & QB_CPU_AVX2 ? "AVX2" : "no AVX2", flags & QB_CPU_AVX512 ? ", AVX-512" : "",
        qb_kernels()->name);
}

static void check_gpu(struct doctor *d)
{
#ifdef QALLOW_CUDA
    static const char built[] = "built with CUDA";
#else
    static const char built[] = "built without CUDA";
#endif
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);

    say(d, PASS, 0, "gpu", NULL, "%s; %s; pages are kept on the CPU", built,
        driver ? "a driver is there" : "no driver (libcuda.so.1) here");
    if (driver)
        dlclose(driver);
}

static void check_shared_memory(struct doctor *d)
{
    char size[QI_TEXT_MAX];
    struct statvfs fs;

    if (statvfs("/dev/shm", &fs) != 0 || access("/dev/shm", W_OK) != 0)
        say(d, WARN, 0, "/dev/shm", "mount a tmpfs there", "cannot be used: %s; there will be no "
            "shared-memory cache", strerror(errno));
    else {
        uint64_t available = (uint64_t)fs.f_bavail * fs.f_frsize;
        say(d, available < 64 << 20 ? WARN : PASS, 0, "/dev/shm",
            "mount -o remount,size=1G /dev/shm (containers: --shm-size 1g)", "%s free",
            qi_format_size(available, size));
    }
}

/* --- all of it --- */

static int run_checks(struct doctor *d, const char *path)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return qr_fail_errno(errno, "%s", qr_quotez(path));
    char *copy = strdup(path);
    if (!copy)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a path");
    check_inotify(d);
    if (S_ISDIR(st.st_mode)) {
        check_file_system(d, "tree: file system", path);
        check_log_directory(d, path);
    } else {
        check_log_directory(d, dirname(copy));
    }
    check_cpu(d);
    check_gpu(d);
    check_shared_memory(d);
    free(copy);
    return 0;
}

static int run(struct qi_context *context, const void *values)
{
    const struct doctor_options *options = values;
    struct doctor d = {.context = context, .checks = cJSON_CreateArray()};
    int rc = run_checks(&d, options->path);

    if (rc < 0) {
        cJSON_Delete(d.checks);
        return rc;
    }
    if (!context->json) {
        cJSON_Delete(d.checks);
        printf("%d passed, %d warnings, %d failed\n", d.counts[PASS], d.counts[WARN],
               d.counts[FAIL]);
        rc = qi_stdout_check();
    } else {
        cJSON *object = qi_json_begin(context);
        cJSON_AddBoolToObject(object, "good", d.counts[FAIL] == 0);
        cJSON_AddItemToObject(object, "checks", d.checks);
        rc = qi_json_end(object);
    }
    return rc < 0 ? rc : d.worst_status;
}

static const struct qi_option options_table[] = {
    {.name = "PATH", .positional = true, .kind = QI_TEXT, QI_FIELD(struct doctor_options, path),
     .argument = "DIR", .fallback = ".",
     .help = "the directory to record, or the log"},
    {.name = NULL},
};

const struct qi_command qi_command_doctor = {
    .name = "doctor",
    .summary = "check whether this machine is fit to record",
    .description = "One line for each check: PASS, WARN (works, with limits) or FAIL, and under "
                   "it the remedy.",
    .options = options_table,
    .values_size = sizeof(struct doctor_options),
    .run = run,
    .examples = (const struct qi_example[]){{"qallow doctor", "check the present directory"},
                                            {"qallow doctor ~/work --json", "for programs"},
                                            {0}},
    .exits = (const struct qi_exit[]){{0, "nothing failed"}, {66, NULL}, {69, NULL}, {71, NULL},
                                      {0}},
};
