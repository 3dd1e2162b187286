/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow accelerator`: records a directory while it changes, and speaks with the recorder that
 * does (--sync, --label, --status, --stop).
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "accelerator/control_client.h"
#include "accelerator/recorder.h"
#include "backend/kernels.h"
#include "interface/commands.h"
#include "interface/report.h"
#include "runtime/error.h"
#include "runtime/os.h"

enum { AUTO = 0, SKIPPED_SHOWN = 100 };

/* --sync: alone it is the request, with a value the durability. */
struct sync {
    int request;
    enum qr_sync mode;
    int interval_ms;
};

struct uuid {
    uint8_t bytes[16];
};

struct accelerator {
    const char *watch, *file, *log, *label, *telemetry, *cpu_mask;
    int threads, compress, once, poll, include_git, no_ignore, stop, status, clock;
    int64_t settle, max_settle, keep_time, telemetry_interval, timeout;
    uint64_t keep_bytes, max_file_size, max_memory;
    struct qi_list excludes;
    struct sync sync;
    struct uuid uuid;
};

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
    struct sync sync = {.interval_ms = 1000};
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
    *(struct sync *)field = sync;
    return NULL;
}

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef";
    const char *at = c ? strchr(digits, c | 0x20) : NULL;
    return at ? (int)(at - digits) : -1;
}

static const char *parse_uuid(const char *text, void *field)
{
    struct uuid uuid;
    for (size_t i = 0; i < sizeof uuid.bytes; i++) {
        text += *text == '-' && i > 0;
        int high = hex_digit(text[0]);
        int low = high < 0 ? -1 : hex_digit(text[1]);
        if (low < 0)
            return "32 hexadecimal digits, with or without hyphens between bytes";
        uuid.bytes[i] = (uint8_t)(high << 4 | low);
        text += 2;
    }
    if (*text)
        return "32 hexadecimal digits, with or without hyphens between bytes";
    *(struct uuid *)field = uuid;
    return NULL;
}

static const char *const clocks[] = {"real", "logical", NULL};

static const struct qi_option options[] = {
    {.name = "watch", .letter = 'w', .kind = QI_TEXT, .argument = "DIR",
     QI_FIELD(struct accelerator, watch), .group = "source",
     .help = "record this directory while it changes"},
    {.name = "file", .letter = 'f', .kind = QI_TEXT, .argument = "FILE",
     QI_FIELD(struct accelerator, file), .group = "source",
     .help = "record this one file while it changes"},
    {.name = "log", .letter = 'l', .kind = QI_TEXT, .argument = "LOG",
     QI_FIELD(struct accelerator, log), .help = "the log (default: DIR.tlog beside the directory)"},
    {.name = "threads", .letter = 't', .kind = QI_CUSTOM, .argument = "N", .parse = parse_threads,
     QI_FIELD(struct accelerator, threads), .fallback = "auto",
     .help = "readers of files: a number, or auto: one for each CPU, at most 8"},
    {.name = "settle", .kind = QI_DURATION, .argument = "TIME", .unit = "ms", .fallback = "100ms",
     QI_FIELD(struct accelerator, settle), .maximum = UINT64_C(3600000000000),
     .help = "an epoch is made when nothing has changed for this long"},
    {.name = "max-settle", .kind = QI_DURATION, .argument = "TIME", .unit = "ms",
     .fallback = "2000ms", QI_FIELD(struct accelerator, max_settle),
     .maximum = UINT64_C(86400000000000),
     .help = "a change waits at most this long in a tree that never rests"},
    {.name = "once", .letter = '1', .kind = QI_FLAG, QI_FIELD(struct accelerator, once),
     .help = "record one epoch and end"},
    {.name = "poll", .kind = QI_FLAG, QI_FIELD(struct accelerator, poll),
     .help = "compare at intervals instead of waiting for events"},
    {.name = "exclude", .letter = 'x', .kind = QI_LIST, .argument = "GLOB",
     QI_FIELD(struct accelerator, excludes),
     .help = "leave out what this gitignore pattern matches"},
    {.name = "no-ignore-files", .kind = QI_FLAG, QI_FIELD(struct accelerator, no_ignore),
     .help = "do not read .qallowignore files"},
    {.name = "include-git", .kind = QI_FLAG, QI_FIELD(struct accelerator, include_git),
     .help = "record .git directories too"},
    {.name = "max-file-size", .kind = QI_SIZE, .argument = "SIZE",
     QI_FIELD(struct accelerator, max_file_size), .help = "leave out larger files"},
    {.name = "keep-time", .kind = QI_DURATION, .argument = "TIME",
     QI_FIELD(struct accelerator, keep_time), .minimum = 1,
     .help = "drop epochs older than this, now and then"},
    {.name = "keep-bytes", .kind = QI_SIZE, .argument = "SIZE",
     QI_FIELD(struct accelerator, keep_bytes), .minimum = 1,
     .help = "drop the oldest epochs when the log is larger than this"},
    {.name = "sync", .letter = 's', .kind = QI_CUSTOM, .argument = "WHEN", .implied = "now",
     .parse = parse_sync, QI_FIELD(struct accelerator, sync),
     .help = "alone: ask the recorder of --log for the epoch that holds everything written before; "
             "with commit (default), interval[=MS] or none: when epochs become durable"},
    {.name = "compress", .letter = 'z', .kind = QI_CUSTOM, .argument = "LEVEL",
     .parse = qi_parse_compress, QI_FIELD(struct accelerator, compress), .fallback = "1",
     .help = QI_COMPRESS_HELP},
    {.name = "label", .kind = QI_TEXT, .argument = "NAME", QI_FIELD(struct accelerator, label),
     .help = "name the epoch that holds everything written before; with --watch or --file: the "
             "first one"},
    {.name = "status", .kind = QI_FLAG, QI_FIELD(struct accelerator, status), .group = "request",
     .help = "ask the recorder of --log how it is"},
    {.name = "stop", .kind = QI_FLAG, QI_FIELD(struct accelerator, stop), .group = "request",
     .help = "let the recorder of --log record what has changed, and end"},
    {.name = "timeout", .kind = QI_DURATION, .argument = "TIME", .unit = "ms", .fallback = "10s",
     QI_FIELD(struct accelerator, timeout), .maximum = UINT64_C(86400000000000),
     .help = "--sync and --label wait this long for files that change while they are read"},
    {.name = "telemetry", .kind = QI_TEXT, .argument = "FILE",
     QI_FIELD(struct accelerator, telemetry), .help = "append metrics to this CSV file"},
    {.name = "telemetry-interval", .kind = QI_DURATION, .argument = "TIME", .fallback = "10s",
     QI_FIELD(struct accelerator, telemetry_interval), .minimum = 1000000,
     .maximum = UINT64_C(86400000000000), .help = "time between rows of metrics"},
    {.name = "max-memory", .kind = QI_SIZE, .argument = "SIZE",
     QI_FIELD(struct accelerator, max_memory),
     .help = "memory for buffers: fewer threads are used if it is not enough for --threads"},
    {.name = "cpu-mask", .kind = QI_TEXT, .argument = "SET",
     QI_FIELD(struct accelerator, cpu_mask),
     .help = "use at most this instruction set: scalar, avx2, avx512"},
    {.name = "uuid", .kind = QI_CUSTOM, .argument = "UUID", .parse = parse_uuid,
     QI_FIELD(struct accelerator, uuid), .help = "identity of a new log (default: random)"},
    {.name = "clock", .kind = QI_CHOICE, .argument = "CLOCK", .choices = clocks,
     QI_FIELD(struct accelerator, clock), .fallback = "real",
     .help = "times of epochs: real, or logical (1, 2, 3 ...) for logs that are equal byte for "
             "byte"},
    {.name = NULL},
};

/* --- what the recorder says --- */

struct speaker {
    struct qi_context *context;
    const char *path; /* what is recorded */
    int once;
    int deaf; /* nobody reads stdout any more */
    unsigned long skipped, unprinted;
};

static void on_notice(void *context, const char *line)
{
    const struct speaker *speaker = context;
    qi_note(speaker->context, "%s", line);
}

static void on_skipped(void *context, const char *path, const char *why)
{
    struct speaker *speaker = context;
    if (++speaker->skipped <= SKIPPED_SHOWN && why)
        qi_note(speaker->context, "not recorded: %s: %s", qr_quotez(path), why);
    else if (speaker->skipped <= SKIPPED_SHOWN)
        qi_note(speaker->context, "recorded again: %s", qr_quotez(path));
    else if (speaker->skipped == SKIPPED_SHOWN + 1)
        qi_note(speaker->context, "more entries are not recorded; --status counts them");
}

static void json_line(const struct speaker *speaker, const char *event,
                      const struct qa_report *report)
{
    const struct qs_capture *c = &report->capture;
    cJSON *line = qi_json_begin(speaker->context);
    cJSON_AddStringToObject(line, "event", event);
    qi_json_u64(line, "epoch", c->epoch);
    qi_json_time(line, "time", report->time_ns);
    cJSON_AddBoolToObject(line, "committed", c->committed);
    qi_json_u64(line, "created", c->created);
    qi_json_u64(line, "changed", c->changed);
    qi_json_u64(line, "renamed", c->renamed);
    qi_json_u64(line, "removed", c->removed);
    qi_json_u64(line, "attributes", c->attributes);
    qi_json_u64(line, "entries", c->entries);
    qi_json_u64(line, "read_files", c->read_files);
    qi_json_u64(line, "read_bytes", c->read_bytes);
    qi_json_u64(line, "skipped", c->skipped);
    qi_json_u64(line, "waited_us", report->waited_ns / 1000);
    qi_json_end(line);
}

static void text_line(const struct qa_report *report)
{
    const struct qs_capture *c = &report->capture;
    const struct {
        uint64_t count;
        const char *what;
    } parts[] = {{c->created, "created"}, {c->changed, "changed"}, {c->renamed, "renamed"},
                 {c->removed, "removed"}, {c->attributes, "attributes"}};
    char time[QI_TEXT_MAX];
    const char *between = "  ";
    printf("epoch %llu  %s", (unsigned long long)c->epoch, qi_format_time(report->time_ns, time));
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!parts[i].count)
            continue;
        printf("%s%llu %s", between, (unsigned long long)parts[i].count, parts[i].what);
        between = ", ";
    }
    putchar('\n');
}

static void say_unprinted(struct speaker *speaker)
{
    if (speaker->unprinted)
        qi_note(speaker->context, "%lu lines were not printed because nobody read the output; "
                "the epochs are in the log", speaker->unprinted);
    speaker->unprinted = 0;
}

/* A reader that has stopped reading must not stop the recording: a line is printed only if it
 * fits. (A pipe that polls as writable takes PIPE_BUF bytes, more than any line has.) */
static int stdout_has_room(void)
{
    struct pollfd out = {STDOUT_FILENO, POLLOUT, 0};
    return poll(&out, 1, 0) != 0;
}

static void on_report(void *context, const struct qa_report *report)
{
    struct speaker *speaker = context;
    int ready = report->first && !speaker->once;
    if (speaker->deaf)
        return;
    if (!speaker->once && !stdout_has_room()) {
        speaker->unprinted++;
        return;
    }
    say_unprinted(speaker);
    if (speaker->context->json) {
        json_line(speaker, ready ? "ready" : "epoch", report);
    } else {
        if (report->capture.committed)
            text_line(report);
        else if (speaker->once)
            printf("nothing has changed since epoch %llu\n",
                   (unsigned long long)report->capture.epoch);
        if (ready)
            printf("ready at epoch %llu: recording %s\n",
                   (unsigned long long)report->capture.epoch, qr_quotez(speaker->path));
    }
    speaker->deaf = qi_stdout_flush() < 0;
    if (speaker->deaf)
        qi_note(speaker->context, "nobody reads the output any more; recording goes on");
}

/* --- recording --- */

/* "DIR.tlog" beside the directory; freed with qr_free(). */
static char *default_log(const char *path)
{
    static const char suffix[] = ".tlog";
    char *real = realpath(path, NULL);
    if (!real) {
        qr_fail_errno(errno, "%s", qr_quotez(path));
        return NULL;
    }
    size_t length = strlen(real);
    char *log = qr_malloc(length + sizeof suffix);
    if (log) {
        memcpy(log, real, length);
        memcpy(log + length, suffix, sizeof suffix);
    } else {
        qr_fail(QALLOW_E_NO_MEMORY, "no memory for a path");
    }
    free(real);
    return log;
}

static int thread_count(int threads)
{
    long online = threads == AUTO ? sysconf(_SC_NPROCESSORS_ONLN) : threads;
    if (threads == AUTO && online > 8)
        return 8;
    return online < 1 ? 1 : (int)online;
}

static int record(struct qi_context *context, const struct accelerator *a, const char *log)
{
    struct speaker speaker = {.context = context, .path = a->file ? a->file : a->watch,
                              .once = a->once};
    const struct qa_recorder_options recorder = {
        .path = speaker.path,
        .is_file = a->file != NULL,
        .log = log,
        .store = {.logical_clock = a->clock == 1,
                  .sync = a->sync.mode,
                  .sync_interval_ms = a->sync.interval_ms,
                  .compress_level = a->compress,
                  .uuid = qi_given(context, "uuid") ? a->uuid.bytes : NULL,
                  .max_memory = a->max_memory},
        .rules = {.include_git = a->include_git,
                  .max_file_size = a->max_file_size,
                  .excludes = (char **)(uintptr_t)a->excludes.items, /* copied, not changed */
                  .exclude_count = a->excludes.count,
                  .no_ignore_file = a->no_ignore},
        .threads = thread_count(a->threads),
        .settle = {(uint64_t)a->settle, (uint64_t)a->max_settle},
        .once = a->once,
        .poll = a->poll,
        .label = a->label,
        .retention = {.keep_time_ns = a->keep_time, .keep_bytes = a->keep_bytes},
        .telemetry = a->telemetry,
        .telemetry_interval_ns = (uint64_t)a->telemetry_interval,
        .stop_fd = (qi_signals_catch(), qi_signal_fd()),
        .report = on_report,
        .notice = on_notice,
        .skipped = on_skipped,
        .context = &speaker,
    };
    if (!a->include_git && !a->file)
        qi_note(context, ".git directories are left out; --include-git records them");
    int result = qa_record(&recorder);
    char detail[1024];
    snprintf(detail, sizeof detail, "%s", qallow_error_detail());
    say_unprinted(&speaker);
    return result < 0 ? qr_fail(result, "%s", detail) : result;
}

/* --- requests --- */

static cJSON *request_of(const struct accelerator *a)
{
    cJSON *request = cJSON_CreateObject();
    const char *what = a->stop ? "stop" : a->status ? "status" : a->label ? "label" : "sync";
    cJSON_AddStringToObject(request, "request", what);
    if (a->label)
        cJSON_AddStringToObject(request, "name", a->label);
    cJSON_AddNumberToObject(request, "timeout_ms", (double)(a->timeout / 1000000));
    return request;
}

/* The answer's members behind schema and version, or one a line as text. */
static int print_answer(const struct qi_context *context, const struct accelerator *a,
                        const char *text)
{
    cJSON *answer = cJSON_Parse(text), *item;
    if (!answer)
        return qr_fail(QALLOW_E_SERIALIZATION, "the recorder's answer is not JSON");
    cJSON_DeleteItemFromObjectCaseSensitive(answer, "ok");
    cJSON *line = context->json ? qi_json_begin(context) : NULL;
    while ((item = answer->child)) {
        cJSON_DetachItemViaPointer(answer, item);
        if (context->json) {
            cJSON_AddItemToObject(line, item->string, item);
            continue;
        }
        if (a->status)
            printf("%s: ", item->string);
        if (cJSON_IsNumber(item))
            printf("%.0f\n", item->valuedouble);
        else
            puts(cJSON_IsString(item) ? item->valuestring : cJSON_IsTrue(item) ? "yes" : "no");
        cJSON_Delete(item);
    }
    cJSON_Delete(answer);
    return context->json ? qi_json_end(line) : 0;
}

static int ask(struct qi_context *context, const struct accelerator *a, const char *log)
{
    char *answer = NULL;
    cJSON *request = request_of(a);
    char *text = cJSON_PrintUnformatted(request);
    cJSON_Delete(request);
    if (!text)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the request");
    int result = qa_control_request(log, text, &answer);
    cJSON_free(text);
    if (result == 0)
        result = print_answer(context, a, answer);
    qr_free(answer);
    return result;
}

static int run(struct qi_context *context, const void *values)
{
    const struct accelerator *a = values;
    const char *source = a->file ? a->file : a->watch;
    int request = a->stop || a->status || a->sync.request || (a->label && !source);
    if (!source && !a->log)
        return qi_usage(context, "--watch DIR, --file FILE, or a request and --log LOG");
    if (!source && !request)
        return qi_usage(context, "--watch DIR or --file FILE, or one of --sync, --label NAME, "
                                 "--status, --stop");
    if (a->stop + a->status + a->sync.request + (request && a->label) > 1)
        return qi_usage(context, "one of --sync, --label NAME, --status and --stop");
    if (a->keep_time && a->clock == 1)
        return qi_usage(context, "--keep-time with --clock real");
    if (a->cpu_mask && qb_cpu_mask_set(a->cpu_mask) < 0)
        return qi_usage(context, "--cpu-mask scalar, avx2 or avx512");
    char *beside = a->log ? NULL : default_log(source);
    if (!a->log && !beside)
        return QALLOW_E_NO_INPUT;
    const char *log = a->log ? a->log : beside;
    int result = request ? ask(context, a, log) : record(context, a, log);
    qr_free(beside);
    return result;
}

const struct qi_command qi_command_accelerator = {
    .name = "accelerator",
    .summary = "record a directory while it changes",
    .description =
        "Watches a directory (or one file) that other programs change and keeps every settled "
        "change as an epoch in a log, from which `qallow replay` gives any epoch back. Started "
        "again on the same log it goes on, with what changed in between as the first epoch.\n\n"
        "Prints one line for each epoch, and a line with `ready` when the first look at the tree "
        "is recorded and changes are being watched for. The first SIGINT or SIGTERM records what "
        "has changed and ends with 0; the second ends at once, and loses nothing that an epoch "
        "was printed for.\n\n"
        "With --sync, --label, --status or --stop it asks the recorder that is running on the log "
        "instead; --sync prints the epoch that holds everything written before the call.",
    .options = options,
    .values_size = sizeof(struct accelerator),
    .run = run,
    .examples = (const struct qi_example[]){
        {"qallow accelerator --watch work --log work.tlog --threads 4", "record until Ctrl-C"},
        {"qallow accelerator --watch work --log work.tlog --once", "record the state of now"},
        {"qallow accelerator --sync --log work.tlog", "the epoch that holds what is there now"},
        {"qallow accelerator --label before-upgrade --log work.tlog", "the same, with a name"},
        {"qallow accelerator --stop --log work.tlog", "record what has changed, and end"},
        {0}},
    .exits = (const struct qi_exit[]){
        {0, "recorded until it was told to stop; the request was answered"},
        {64, NULL}, {65, NULL},
        {66, "the directory does not exist, or was deleted, moved away or unmounted"},
        {69, "a request, but nobody records into this log"},
        {74, "the log cannot be written: disk full, or an I/O error; what was printed is kept"},
        {75, "somebody else records into this log; or files change faster than they can be read"},
        {77, NULL}, {0}},
};
