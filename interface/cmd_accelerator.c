/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow accelerator`: its options, and which of three things they ask for: to keep a directory
 * (cmd_accelerator_keep.c), to ask a keeper something (cmd_accelerator_ask.c), or to ask its cache
 * (cmd_accelerator_query.c, cmd_accelerator_get.c).
 */
#include <string.h>

#include "backend/kernels.h"
#include "interface/cmd_accelerator.h"
#include "interface/commands.h"
#include "interface/report.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "telemetry/telemetry.h"

enum { AUTO = 0 };
#define CONTENT_DEFAULT "1M"

/* What it is asked to do. Each option says with which of these it goes. */
enum {
    KEEP = 1 << 0,
    SYNC = 1 << 1,
    LABEL = 1 << 2,
    STATUS = 1 << 3,
    STOP = 1 << 4,
    GET = 1 << 5,
    SINCE = 1 << 6,
    WAIT = 1 << 7,
    EXPORT = 1 << 8,
    CAT = 1 << 9,
};
static const char *const modes[] = {"keeping a directory", "--sync", "--label", "--status",
                                    "--stop", "--get", "--since", "--wait", "--export", "--cat",
                                    NULL};

/* --- values that are more than one kind --- */

static const char *parse_threads(const char *text, void *field)
{
    uint64_t n;
    if (strcmp(text, "auto") != 0 &&
        (qi_parse_number(text, &n) || n == 0 || n > 1024))
        return "a number from 1 to 1024, or auto";
    *(int *)field = strcmp(text, "auto") == 0 ? AUTO : (int)n;
    return NULL;
}

static const char *parse_sync(const char *text, void *field)
{
    static const char expected[] = "commit, interval, interval=MILLISECONDS or none";
    struct accelerator_sync sync = {.interval_ms = 1000};
    uint64_t ms;
    if (strcmp(text, "now") == 0)
        sync.request = 1;
    else if (strcmp(text, "commit") == 0)
        sync.mode = QR_SYNC_COMMIT;
    else if (strcmp(text, "none") == 0)
        sync.mode = QR_SYNC_NONE;
    else if (strncmp(text, "interval", 8) == 0)
        sync.mode = QR_SYNC_INTERVAL;
    else
        return expected;
    if (sync.mode == QR_SYNC_INTERVAL && text[8] != '\0') {
        if (text[8] != '=' || qi_parse_number(text + 9, &ms) || ms == 0 || ms > 3600000)
            return expected;
        sync.interval_ms = (int)ms;
    }
    *(struct accelerator_sync *)field = sync;
    return NULL;
}

static const char *parse_content(const char *text, void *field)
{
    uint64_t size;
    if (qi_parse_size(text, &size) || size == 0)
        return "a size like 64K or 1M";
    *(uint64_t *)field = size;
    return NULL;
}

static const char *const clocks[] = {"real", "logical", NULL};
static const char *const hashes[] = {"xxh3", "sha256", NULL};

static const struct qi_option options[] = {
    {.name = "watch", .letter = 'w', .kind = QI_LIST, .argument = "DIR",
     QI_FIELD(struct accelerator, watch), .group = "source",
     .help = "record and cache this directory while it changes; may be given several times"},
    {.name = "file", .letter = 'f', .kind = QI_TEXT, .argument = "FILE",
     QI_FIELD(struct accelerator, file), .group = "source",
     .help = "record and cache this one file while it changes"},
    {.name = "log", .modes = KEEP | SYNC | LABEL | STATUS | STOP, .letter = 'l', .kind = QI_TEXT,
     .argument = "LOG", QI_FIELD(struct accelerator, log),
     .help = "the log (default: DIR.tlog beside the directory)"},
    {.name = "no-log", .modes = KEEP, .kind = QI_FLAG, QI_FIELD(struct accelerator, no_log),
     .help = "keep no log, only the cache in shared memory"},
    {.name = "no-cache", .modes = KEEP, .kind = QI_FLAG, QI_FIELD(struct accelerator, no_cache),
     .help = "keep no cache, only the log"},
    {.name = "threads", .modes = KEEP, .letter = 't', .kind = QI_CUSTOM, .argument = "N",
     .parse = parse_threads, QI_FIELD(struct accelerator, threads), .fallback = "auto",
     .help = "readers of files: a number, or auto: one for each CPU, at most 8"},
    {.name = "settle", .modes = KEEP, .kind = QI_DURATION, .argument = "TIME", .unit = "ms",
     .fallback = "100ms", QI_FIELD(struct accelerator, settle), .maximum = UINT64_C(3600000000000),
     .help = "an epoch is made when nothing has changed for this long"},
    {.name = "max-settle", .modes = KEEP, .kind = QI_DURATION, .argument = "TIME", .unit = "ms",
     .fallback = "2000ms", QI_FIELD(struct accelerator, max_settle),
     .maximum = UINT64_C(86400000000000),
     .help = "a change waits at most this long in a tree that never rests"},
    {.name = "once", .modes = KEEP, .letter = '1', .kind = QI_FLAG,
     QI_FIELD(struct accelerator, once),
     .help = "record one epoch and end; with --no-log: bring the cache up to date and end"},
    {.name = "poll", .modes = KEEP, .kind = QI_FLAG, QI_FIELD(struct accelerator, poll),
     .group = "watching",
     .help = "compare at intervals instead of waiting for events"},
    {.name = "no-poll", .modes = KEEP, .kind = QI_FLAG, QI_FIELD(struct accelerator, no_poll),
     .group = "watching",
     .help = "never compare at intervals, even what gives no events"},
    {.name = "no-watch", .modes = KEEP, .kind = QI_FLAG, QI_FIELD(struct accelerator, no_watch),
     .group = "watching",
     .help = "look at the start, at each --sweep and when --sync asks, and not otherwise"},
    {.name = "sweep", .modes = KEEP, .kind = QI_DURATION, .argument = "TIME",
     QI_FIELD(struct accelerator, sweep), .minimum = 1000000,
     .maximum = UINT64_C(31536000000000000),
     .help = "look at every file again this often, for what gives no events"},
    {.name = "run", .modes = KEEP, .kind = QI_TEXT, .argument = "CMD",
     QI_FIELD(struct accelerator, command),
     .help = "run this with sh after each epoch, never twice at once; it has QALLOW_EPOCH, "
             "QALLOW_SINCE and QALLOW_ROOT"},
    {.name = "hash", .modes = KEEP, .kind = QI_CHOICE, .argument = "HASH", .choices = hashes,
     QI_FIELD(struct accelerator, hash), .fallback = "xxh3",
     .help = "of the cache: xxh3 (XXH3-128), or sha256 where somebody may forge files"},
    {.name = "content", .modes = KEEP, .kind = QI_CUSTOM, .argument = "SIZE",
     .implied = CONTENT_DEFAULT, .parse = parse_content, QI_FIELD(struct accelerator, content),
     .help = "the cache has the bytes of files up to this size, as far as they fit"},
    {.name = "shm-size", .modes = KEEP, .kind = QI_SIZE, .argument = "SIZE",
     QI_FIELD(struct accelerator, shm_size), .minimum = 65536,
     .help = "most shared memory for the cache (default: what there is)"},
    {.name = "exclude", .modes = KEEP, .letter = 'x', .kind = QI_LIST, .argument = "GLOB",
     QI_FIELD(struct accelerator, excludes),
     .help = "leave out what this gitignore pattern matches"},
    {.name = "no-ignore-files", .modes = KEEP, .kind = QI_FLAG,
     QI_FIELD(struct accelerator, no_ignore),
     .help = "do not read .qallowignore files"},
    {.name = "include-git", .modes = KEEP, .kind = QI_FLAG,
     QI_FIELD(struct accelerator, include_git),
     .help = "record .git directories too"},
    {.name = "max-file-size", .modes = KEEP, .kind = QI_SIZE, .argument = "SIZE",
     QI_FIELD(struct accelerator, max_file_size), .help = "leave out larger files"},
    {.name = "keep-time", .modes = KEEP, .kind = QI_DURATION, .argument = "TIME",
     QI_FIELD(struct accelerator, keep_time), .minimum = 1,
     .help = "drop epochs older than this, now and then"},
    {.name = "keep-bytes", .modes = KEEP, .kind = QI_SIZE, .argument = "SIZE",
     QI_FIELD(struct accelerator, keep_bytes), .minimum = 1,
     .help = "drop the oldest epochs when the log is larger than this"},
    {.name = "sync", .modes = KEEP | SYNC, .letter = 's', .kind = QI_CUSTOM, .argument = "WHEN",
     .implied = "now", .parse = parse_sync, QI_FIELD(struct accelerator, sync),
     .help = "alone: ask the recorder of --log for the epoch that holds everything written before; "
             "with commit (default), interval[=MS] or none: when epochs become durable"},
    {.name = "compress", .modes = KEEP, .letter = 'z', .kind = QI_CUSTOM, .argument = "LEVEL",
     .parse = qi_parse_compress, QI_FIELD(struct accelerator, compress), .fallback = "1",
     .help = QI_COMPRESS_HELP},
    {.name = "label", .modes = KEEP | LABEL, .kind = QI_TEXT, .argument = "NAME",
     QI_FIELD(struct accelerator, label),
     .help = "name the epoch that holds everything written before; with --watch or --file: the "
             "first one"},
    {.name = "status", .modes = STATUS, .kind = QI_FLAG, QI_FIELD(struct accelerator, status),
     .group = "request",
     .help = "what the cache and its keeper are doing, also when it is dead; with --log: ask the "
             "recorder"},
    {.name = "get", .modes = GET, .letter = 'g', .kind = QI_FLAG, QI_FIELD(struct accelerator, get),
     .group = "request",
     .help = "print the hash of each PATH from the cache, as checksum tools do"},
    {.name = "cat", .modes = CAT, .kind = QI_FLAG, QI_FIELD(struct accelerator, cat),
     .group = "request",
     .help = "print the bytes of one PATH from the cache, if it was started with --content"},
    {.name = "since", .modes = SINCE, .kind = QI_NUMBER, .argument = "EPOCH",
     QI_FIELD(struct accelerator, since), .group = "request",
     .help = "list what has changed after this epoch"},
    {.name = "wait", .modes = WAIT, .kind = QI_NUMBER, .argument = "EPOCH",
     QI_FIELD(struct accelerator, wait), .group = "request",
     .help = "wait for an epoch after this one, and print it"},
    {.name = "export", .modes = EXPORT, .kind = QI_TEXT, .argument = "FILE",
     QI_FIELD(struct accelerator, export_to), .group = "request",
     .help = "write the whole cache to this file as JSON (-: to standard output)"},
    {.name = "stop", .modes = STOP, .kind = QI_FLAG, QI_FIELD(struct accelerator, stop),
     .group = "request",
     .help = "let the recorder of --watch or --log record what has changed, and end"},
    {.name = "timeout", .modes = SYNC | LABEL | WAIT, .kind = QI_DURATION, .argument = "TIME",
     .unit = "ms", QI_FIELD(struct accelerator, timeout),
     .maximum = UINT64_C(86400000000000),
     .help = "how long --sync and --label wait for files that change while they are read (10s if "
             "it is not given), and --wait for an epoch (for ever if it is not given)"},
    {.name = "telemetry", .modes = KEEP, .kind = QI_TEXT, .argument = "FILE",
     QI_FIELD(struct accelerator, telemetry), .help = "append metrics to this CSV file"},
    {.name = "prometheus", .modes = KEEP, .kind = QI_TEXT, .argument = "FILE",
     QI_FIELD(struct accelerator, prometheus),
     .help = "replace this file by the present metrics, as Prometheus reads them"},
    {.name = "telemetry-interval", .modes = KEEP, .kind = QI_DURATION, .argument = "TIME",
     .fallback = "10s", QI_FIELD(struct accelerator, telemetry_interval), .minimum = 1000000,
     .maximum = UINT64_C(86400000000000),
     .help = "time between rows of metrics"},
    {.name = "verbose", .modes = KEEP, .letter = 'v', .kind = QI_FLAG,
     QI_FIELD(struct accelerator, verbose),
     .help = "say on standard error when caches, watchers and workers come and go"},
    {.name = "max-memory", .modes = KEEP, .kind = QI_SIZE, .argument = "SIZE",
     QI_FIELD(struct accelerator, max_memory),
     .help = "memory for buffers: fewer threads are used if it is not enough for --threads"},
    {.name = "cpu-mask", .modes = KEEP, .kind = QI_TEXT, .argument = "SET",
     QI_FIELD(struct accelerator, cpu_mask),
     .help = "use at most this instruction set: scalar, avx2, avx512"},
    {.name = "uuid", .modes = KEEP, .kind = QI_CUSTOM, .argument = "UUID", .parse = qi_parse_uuid,
     QI_FIELD(struct accelerator, uuid), .help = "identity of a new log (default: random)"},
    {.name = "clock", .modes = KEEP, .kind = QI_CHOICE, .argument = "CLOCK", .choices = clocks,
     QI_FIELD(struct accelerator, clock), .fallback = "real",
     .help = "times of epochs: real, or logical (1, 2, 3 ...) for logs that are equal byte for "
             "byte"},
    {.name = "PATH", .positional = true, .kind = QI_LIST, .argument = "FILE",
     QI_FIELD(struct accelerator, paths),
     .help = "with --get and --cat; relative to --watch DIR if that is given, else to the present "
             "directory, and each in the cache that covers it"},
    {.name = NULL},
};

/* --- what is asked for --- */

/* How many requests there are; *mode is the last of them, or KEEP. */
static int find_requests(const struct qi_context *context, const struct accelerator *a,
                         unsigned *mode)
{
    int source = a->file || a->watch.count, count = 0;
    const struct {
        int asked;
        unsigned mode;
    } requests[] = {
        {a->sync.request, SYNC},
        {a->label && (!source || a->sync.request), LABEL},
        {a->status, STATUS},
        {a->stop, STOP},
        {a->get, GET},
        {a->cat, CAT},
        {qi_given(context, "since"), SINCE},
        {qi_given(context, "wait"), WAIT},
        {a->export_to != NULL, EXPORT},
    };
    *mode = KEEP;
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
        if (requests[i].asked) {
            *mode = requests[i].mode;
            count++;
        }
    return count;
}

/* Which options go together. 0, or a usage error. */
static int check(struct qi_context *context, const struct accelerator *a, int requests)
{
    int source = a->file || a->watch.count;
    if (requests > 1)
        return qi_usage(context, "one of --sync, --label NAME, --status, --stop, --get, --cat, "
                                 "--since, --wait and --export");
    if (requests && a->watch.count > 1)
        return qi_usage(context, "one --watch DIR to ask about");
    if (!requests && !source)
        return qi_usage(context, "--watch DIR or --file FILE, or a request such as --status");
    if ((a->get || a->cat) != (a->paths.count > 0) || (a->cat && a->paths.count > 1))
        return qi_usage(context, a->cat ? "--cat PATH" : "--get PATH...");
    if (a->cat && context->json)
        return qi_usage(context, "--cat without --json: bytes are no JSON");
    if (a->log && a->watch.count > 1)
        return qi_usage(context, "--log with one --watch; several have a log beside each");
    if (a->log && a->no_log)
        return qi_usage(context, "--log LOG or --no-log");
    if (a->no_log && a->no_cache)
        return qi_usage(context, "--no-log or --no-cache, not both");
    if (a->no_log && (a->keep_time || a->keep_bytes || (a->label && !requests)))
        return qi_usage(context, "--keep-time, --keep-bytes and --label with a log");
    if (a->keep_time && a->clock == 1)
        return qi_usage(context, "--keep-time with --clock real");
    return 0;
}

static int run(struct qi_context *context, const void *values)
{
    const struct accelerator *a = values;
    unsigned mode;
    int requests = find_requests(context, a, &mode);
    int wrong = check(context, a, requests);
    if (wrong || (wrong = qi_check_mode(context, mode)) != 0)
        return wrong;
    if (a->cpu_mask && qb_cpu_mask_set(a->cpu_mask) < 0)
        return qi_usage(context, "--cpu-mask scalar, avx2 or avx512");
    qt_log_level_set(context->quiet ? QT_QUIET : a->verbose ? QT_INFO : QT_WARN);
    if (mode == KEEP)
        return accelerator_keep(context, a);
    if (mode & (GET | CAT))
        return accelerator_get(context, a);
    if (mode & (SINCE | WAIT | EXPORT) || (mode == STATUS && !a->log))
        return accelerator_query(context, a);
    return accelerator_ask(context, a);
}

const struct qi_command qi_command_accelerator = {
    .name = "accelerator",
    .summary = "record and cache a directory while it changes",
    .description =
        "Watches a directory (or one file) that other programs change and keeps every settled "
        "change as an epoch in a log, from which `qallow replay` gives any epoch back. Started "
        "again on the same log it goes on, with what changed in between as the first epoch. Beside "
        "the log it keeps a cache in shared memory, which any process of the same user can ask "
        "for the hash of a file and for what has changed since an epoch, at once.\n\n"
        "Prints one line for each epoch, and a line with `ready` when the first look at the tree "
        "is recorded and changes are being watched for. The first SIGINT or SIGTERM records what "
        "has changed and ends with 0; the second ends at once, and loses nothing that an epoch "
        "was printed for.\n\n"
        "With --sync, --label or --stop it asks the recorder that is running instead; "
        "--sync prints the epoch that holds everything written before the call. With --get, --cat, "
        "--since, --wait, --export or --status it asks the cache. Who is asked is the one of "
        "--log LOG, or of --watch DIR, or else of the nearest directory at or above the present "
        "one. SIGHUP reads the ignore files again.\n\n"
        "`qallow-accelerator` is this command as an executable of its own.",
    .options = options,
    .modes = modes,
    .values_size = sizeof(struct accelerator),
    .run = run,
    .examples = (const struct qi_example[]){
        {"qallow accelerator --watch work --log work.tlog --threads 4", "record until Ctrl-C"},
        {"qallow accelerator --watch work --log work.tlog --once", "record the state of now"},
        {"qallow accelerator --sync --log work.tlog", "the epoch that holds what is there now"},
        {"qallow accelerator --label before-upgrade --log work.tlog", "the same, with a name"},
        {"qallow accelerator --stop --log work.tlog", "record what has changed, and end"},
        {"qallow accelerator --watch work --no-log", "only the cache"},
        {"qallow accelerator --get work/main.c", "its hash, from the cache"},
        {"qallow accelerator --cat work/main.c", "its bytes, if they are kept (--content)"},
        {"qallow accelerator --watch work --since 7", "what has changed after epoch 7"},
        {0}},
    .exits = (const struct qi_exit[]){
        {0, "recorded until it was told to stop; the request was answered"},
        {64, NULL}, {65, NULL},
        {66, "the directory does not exist, or was deleted, moved away or unmounted"},
        {69, "a request, but nobody records into this log, or no cache is there; --cat: the cache "
             "does not have the bytes"},
        {73, "--export: the file cannot be created there"},
        {74, "the log or the output cannot be written: disk full, or an I/O error; what was "
             "printed is kept"},
        {75, "somebody else records into this log; files change faster than they can be read; "
             "--get, --cat: a hash is not that of the newest content; --wait: the time is over"},
        {71, NULL}, {77, NULL}, {0}},
};
