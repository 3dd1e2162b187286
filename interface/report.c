/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How commands speak. One line on stderr for each failure, results on stdout with every write
 * accounted for, and one table that turns results of the library into exit statuses.
 */
#include "interface/report.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "telemetry/telemetry.h"

static int reload_pipe[2] = {-1, -1};
static atomic_int stop_signal;        /* the first signal that asked to stop */
static int stop_pipe[2] = {-1, -1};   /* readable from then on */
static atomic_int stdout_error;       /* errno of the first write to stdout that failed, or 0 */
static int stdout_error_known;        /* a caller was told, and passes it on */
static char *pending_hint;            /* for the line behind the next reported failure */
static atomic_int json_out_of_memory; /* a cJSON call got no memory since qi_json_begin */

/* stdout is a pipe that nobody reads. */
static int reader_gone(void) { return atomic_load(&stdout_error) == EPIPE; }

/* --- exit statuses --- */

int qi_exit_status(int result)
{
    static const struct {
        int result, status;
    } table[] = {
        {QALLOW_E_ARGUMENT, QI_USAGE},
        {QALLOW_E_STATE, QI_INTERNAL},
        {QALLOW_E_UNSUPPORTED_LOCATION, QI_UNAVAILABLE},
        {QALLOW_E_PAGE_NOT_FOUND, QI_NO_INPUT},
        {QALLOW_E_PAGE_EXISTS, QI_CANNOT_CREATE},
        {QALLOW_E_INVALID_DELTA, QI_DAMAGED},
        {QALLOW_E_EPOCH_NOT_FOUND, QI_NO_INPUT},
        {QALLOW_E_CYCLE, QI_DAMAGED},
        {QALLOW_E_FUNCTION, QI_DAMAGED},
        {QALLOW_E_DAMAGED, QI_DAMAGED},
        {QALLOW_E_SERIALIZATION, QI_DAMAGED},
        {QALLOW_E_VERSION, QI_DAMAGED},
        {QALLOW_E_NOT_A_LOG, QI_DAMAGED},
        {QALLOW_E_IO, QI_IO},
        {QALLOW_E_NO_SPACE, QI_IO},
        {QALLOW_E_PERMISSION, QI_PERMISSION},
        {QALLOW_E_NO_INPUT, QI_NO_INPUT},
        {QALLOW_E_CANNOT_CREATE, QI_CANNOT_CREATE},
        {QALLOW_E_BUSY, QI_TRY_AGAIN},
        {QALLOW_E_UNAVAILABLE, QI_UNAVAILABLE},
        {QALLOW_E_NO_MEMORY, QI_SYSTEM_LIMIT},
        {QALLOW_E_LIMIT, QI_SYSTEM_LIMIT},
        {QALLOW_E_DIFFERS, QI_DIFFERS},
        {QALLOW_E_NO_DEVICE, QI_UNAVAILABLE},
        {QALLOW_E_DEVICE_MEMORY, QI_SYSTEM_LIMIT},
        {QALLOW_E_DEVICE, QI_IO},
        {QALLOW_E_INTERNAL, QI_INTERNAL},
    };

    if (result >= 0)
        return result;
    if (result == QALLOW_E_INTERRUPTED)
        return 128 + (reader_gone()          ? SIGPIPE
                      : qi_signal_received() ? qi_signal_received()
                                             : SIGINT);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].result == result)
            return table[i].status;
    return QI_INTERNAL;
}

const char *qi_status_meaning(int status)
{
    static const struct {
        int status;
        const char *meaning;
    } table[] = {
        {QI_OK, "done"},
        {QI_DIFFERS, "a comparison found a difference"},
        {QI_USAGE, "wrong usage"},
        {QI_DAMAGED, "the data is damaged, or is something else"},
        {QI_NO_INPUT, "no such file, directory, epoch, label or page"},
        {QI_UNAVAILABLE, "not available here (no recorder is running, no such device)"},
        {QI_INTERNAL, "a mistake in qallow itself"},
        {QI_SYSTEM_LIMIT, "a limit was reached (memory, watches, sizes)"},
        {QI_CANNOT_CREATE, "the output exists already or cannot be made"},
        {QI_IO, "reading or writing failed, or the disk is full"},
        {QI_TRY_AGAIN, "locked by another process, try again"},
        {QI_PERMISSION, "permission denied"},
        {QI_CONFIG, "wrong configuration"},
        {128 + SIGINT, "interrupted (SIGINT)"},
        {128 + SIGTERM, "terminated (SIGTERM)"},
    };

    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].status == status)
            return table[i].meaning;
    return NULL;
}

/* --- stderr --- */

static void say(const char *prefix, const char *separator, const char *format, va_list args)
{
    flockfile(stderr);
    fprintf(stderr, "%s%s", prefix, separator);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    funlockfile(stderr);
}

void qi_error(const struct qi_context *context, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say(context->path, ": ", format, args);
    va_end(args);
}

void qi_hint(const struct qi_context *context, const char *format, ...)
{
    va_list args;

    free(pending_hint);
    pending_hint = NULL;
    va_start(args, format);
    if (!context->quiet && vasprintf(&pending_hint, format, args) < 0)
        pending_hint = NULL; /* no memory: the error line is what matters */
    va_end(args);
}

void qi_note(const struct qi_context *context, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    if (!context->quiet)
        say(context->path, ": ", format, args);
    va_end(args);
}

int qi_report(const struct qi_context *context, int result)
{
    const char *detail = qallow_error_detail();

    if (result < 0 && !(result == QALLOW_E_INTERRUPTED && reader_gone()))
        qi_error(context, "%s", *detail ? detail : qallow_strerror(result));
    if (result < 0 && pending_hint)
        fprintf(stderr, "hint: %s\n", pending_hint);
    if (result < 0) {
        free(pending_hint);
        pending_hint = NULL;
    }
    return qi_exit_status(result);
}

/* --- stdout --- */

/* What stdio calls to write: whichever call it was that filled its buffer, and whether its result
 * was looked at or not, the reason of the first failure is remembered. */
static ssize_t write_stdout(void *cookie, const char *bytes, size_t length)
{
    size_t done = 0;

    (void)cookie;
    while (done < length) {
        ssize_t n = write(STDOUT_FILENO, bytes + done, length - done);
        int none = 0, err = errno;
        if (n < 0 && err == EINTR)
            continue;
        if (n < 0) {
            atomic_compare_exchange_strong(&stdout_error, &none, err);
            return 0; /* stdio's way to say that it failed */
        }
        done += (size_t)n;
    }
    return (ssize_t)length;
}

/* Without memory stdout stays what it was: a failure is found then, but not its reason. */
static void take_over_stdout(void)
{
    FILE *out = fopencookie(NULL, "w", (cookie_io_functions_t){.write = write_stdout});

    if (!out)
        return;
    setvbuf(out, NULL, isatty(STDOUT_FILENO) ? _IOLBF : _IOFBF, BUFSIZ);
    stdout = out;
}

int qi_stdout_flush(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    int err = atomic_load(&stdout_error);
    stdout_error_known = 1;
    return err == EPIPE ? QALLOW_E_INTERRUPTED : qr_fail_errno(err ? err : EIO, "standard output");
}

void qi_stdout_forget(void)
{
    int nothing = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (nothing >= 0)
        dup2(nothing, STDOUT_FILENO);
    if (nothing > STDOUT_FILENO)
        close(nothing);
    fflush(stdout);
    clearerr(stdout);
    atomic_store(&stdout_error, 0);
    stdout_error_known = 0;
}

int qi_stdout_check(void) { return ferror(stdout) ? qi_stdout_flush() : 0; }

int qi_stdout_write(const void *bytes, size_t length)
{
    return fwrite(bytes, 1, length, stdout) == length ? 0 : qi_stdout_flush();
}

int qi_stdout_finish(const struct qi_context *context, int status)
{
    int known = stdout_error_known, result = qi_stdout_flush();

    if (result == 0)
        return status;
    return known && status != 0 ? qi_exit_status(result) : qi_report(context, result);
}

/* --- JSON --- */

static void *json_malloc(size_t size)
{
    void *memory = qr_malloc(size);

    if (!memory)
        atomic_store(&json_out_of_memory, 1);
    return memory;
}

cJSON *qi_json_begin(const struct qi_context *context)
{
    static atomic_int hooked;
    char schema[sizeof context->path];

    if (!atomic_exchange(&hooked, 1))
        cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = json_malloc, .free_fn = qr_free});
    snprintf(schema, sizeof schema, "%s", context->path);
    for (char *p = schema; *p; p++)
        if (*p == ' ' || *p == '-') /* qallow-accelerator prints what qallow accelerator does */
            *p = '.';
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "schema", schema);
    cJSON_AddNumberToObject(object, "version", 1);
    return object;
}

int qi_json_end(cJSON *object)
{
    char *text = cJSON_PrintUnformatted(object);
    int rc = 0;

    cJSON_Delete(object);
    if (atomic_exchange(&json_out_of_memory, 0) || !text)
        rc = qr_fail(QALLOW_E_NO_MEMORY, "no memory for the JSON output");
    if (rc == 0 && (fputs(text, stdout) < 0 || fputc('\n', stdout) == EOF))
        rc = qi_stdout_flush();
    cJSON_free(text);
    return rc;
}

cJSON *qi_json_u64(cJSON *object, const char *name, uint64_t value)
{
    char digits[QI_TEXT_MAX];

    snprintf(digits, sizeof digits, "%llu", (unsigned long long)value);
    return cJSON_AddRawToObject(object, name, digits);
}

cJSON *qi_json_i64(cJSON *object, const char *name, int64_t value)
{
    char digits[QI_TEXT_MAX];

    snprintf(digits, sizeof digits, "%lld", (long long)value);
    return cJSON_AddRawToObject(object, name, digits);
}

void qi_json_time(cJSON *object, const char *name, int64_t ns)
{
    char text[QI_TEXT_MAX];
    cJSON_AddStringToObject(object, name, qi_format_time(ns, text));
}

void qi_json_hex(cJSON *object, const char *name, const void *bytes, size_t length)
{
    char *text = json_malloc(2 * length + 1);

    if (!text)
        return;
    cJSON_AddStringToObject(object, name, qi_format_hex(bytes, length, text, 2 * length + 1));
    qr_free(text);
}

/* The length of the UTF-8 sequence at p[0..n), 0 if there is none (Unicode 15, table 3-7). */
static size_t utf8_length(const unsigned char *p, size_t n)
{
    size_t length = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

    if (p[0] > 0xf4 || length > n)
        return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

void qi_json_path(cJSON *object, const char *name, const void *bytes, size_t length)
{
    const unsigned char *at = bytes;
    char *text = json_malloc(3 * length + 1), *out = text, hex_name[64];
    int bad = 0;

    if (!text)
        return;
    for (size_t i = 0; i < length;) {
        size_t n = at[i] ? utf8_length(at + i, length - i) : 0;
        memcpy(out, n ? (const char *)at + i : "\xef\xbf\xbd", n ? n : 3);
        out += n ? n : 3;
        i += n ? n : 1;
        bad |= !n;
    }
    *out = 0;
    cJSON_AddStringToObject(object, name, text);
    qr_free(text);
    if (!bad)
        return;
    snprintf(hex_name, sizeof hex_name, "%s_hex", name);
    qi_json_hex(object, hex_name, bytes, length);
}

/* --- the terminal --- */

static int plain_terminal(void)
{
    const char *term = getenv("TERM");
    return !term || strcmp(term, "dumb") == 0;
}

int64_t qi_monotonic_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

void qi_progress_begin(struct qi_progress *progress, const struct qi_context *context,
                       const char *what)
{
    *progress = (struct qi_progress){.context = context, .what = what};
    progress->on = !context->quiet && isatty(STDERR_FILENO) && !plain_terminal();
    progress->start_ns = progress->last_ns = qi_monotonic_ns();
}

void qi_progress_bytes(struct qi_progress *progress, uint64_t done, uint64_t total)
{
    char amount[QI_TEXT_MAX], all[QI_TEXT_MAX], rate[QI_TEXT_MAX];
    int64_t now = progress->on ? qi_monotonic_ns() : 0;

    if (!progress->on || now - progress->last_ns < 100000000)
        return;
    progress->last_ns = now;
    qi_format_size(done, amount);
    qi_format_size((uint64_t)((double)done / ((double)(now - progress->start_ns) / 1e9)), rate);
    if (total)
        fprintf(stderr, "\r%s %3d%%, %s of %s, %s/s\033[K", progress->what,
                (int)(100.0 * (double)done / (double)total), amount, qi_format_size(total, all),
                rate);
    else
        fprintf(stderr, "\r%s %s, %s/s\033[K", progress->what, amount, rate);
}

void qi_progress_end(struct qi_progress *progress)
{
    if (progress->on && progress->last_ns != progress->start_ns)
        fputs("\r\033[K", stderr);
    progress->on = 0;
}

/* --- signals --- */

static void on_stop_signal(int number)
{
    int none = 0, saved = errno;

    if (!atomic_compare_exchange_strong(&stop_signal, &none, number))
        _exit(128 + number);
    ssize_t ignored = write(stop_pipe[1], "", 1);
    (void)ignored;
    errno = saved;
}

void qi_signals_catch(void)
{
    struct sigaction action = {.sa_handler = on_stop_signal};
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};

    if (stop_pipe[0] < 0 && pipe2(stop_pipe, O_CLOEXEC | O_NONBLOCK) != 0)
        stop_pipe[0] = stop_pipe[1] = -1;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct sigaction old;
        /* nohup: what was ignored stays ignored */
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(numbers[i], &action, NULL);
    }
}

/* A terminal that hung up asks to stop; a user's `kill -HUP` to read the configuration again. */
static void on_hangup(int number, siginfo_t *info, void *ucontext)
{
    if (info->si_code == SI_KERNEL) {
        on_stop_signal(number);
        return;
    }
    int saved = errno;
    ssize_t ignored = write(reload_pipe[1], "", 1);
    (void)ignored;
    errno = saved;
}

int qi_signals_reload_fd(void)
{
    struct sigaction action = {.sa_sigaction = on_hangup, .sa_flags = SA_SIGINFO}, old;

    if (reload_pipe[0] < 0 && pipe2(reload_pipe, O_CLOEXEC | O_NONBLOCK) != 0) {
        reload_pipe[0] = reload_pipe[1] = -1;
        return -1;
    }
    if (sigaction(SIGHUP, NULL, &old) == 0 && old.sa_handler != SIG_IGN)
        sigaction(SIGHUP, &action, NULL);
    return reload_pipe[0];
}

int qi_signal_received(void) { return atomic_load(&stop_signal); }

int qi_signal_fd(void) { return stop_pipe[0]; }

int qi_signal_check(void)
{
    int number = qi_signal_received();

    if (!number)
        return 0;
    return qr_fail(QALLOW_E_INTERRUPTED, "stopped by SIG%s", sigabbrev_np(number));
}

/* --- the process --- */

static void on_failed_assert(const char *cond, const char *file, int line)
{
    fprintf(stderr,
            "qallow: internal error at %s:%d: '%s' does not hold\n"
            "hint: this is a mistake in qallow %s; please report this line and the command\n",
            file, line, cond, qallow_version());
    _exit(QI_INTERNAL);
}

void qi_process_init(void)
{
    /* A file opened later must not become stdout. Opened for reading, so that writing fails. */
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) != fd)
            _exit(QI_SYSTEM_LIMIT);
    take_over_stdout();
    signal(SIGPIPE, SIG_IGN);
    qr_set_assert_handler(on_failed_assert);
    qt_log_level_set(QT_WARN);
}

int qi_telemetry_open(const char *path, struct qt_csv **csv)
{
    int rc = path ? qt_csv_open(path, csv) : 0;
    return rc < 0 ? qr_fail_errno(-rc, "%s", qr_quotez(path)) : 0;
}

void qi_telemetry_close(const struct qi_context *context, const char *path, struct qt_csv *csv)
{
    int rc = csv ? qt_csv_write(csv) : 0;
    if (rc < 0)
        qi_note(context, "%s: %s: no telemetry", qr_quotez(path), strerror(-rc));
    qt_csv_close(csv);
}
