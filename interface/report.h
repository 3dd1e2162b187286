/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What commands share when they speak: results on stdout, everything else on stderr, exit
 * statuses, JSON, progress, signals.
 */
#ifndef QI_REPORT_H
#define QI_REPORT_H

#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdint.h>

#include "interface/options.h"
#include "interface/values.h"
#include "qallow/error.h"

/* Exit statuses; those from 64 are sysexits(3). */
enum qi_status {
    QI_OK = 0,
    QI_DIFFERS = 1,
    QI_USAGE = 64,
    QI_DAMAGED = 65,
    QI_NO_INPUT = 66,
    QI_UNAVAILABLE = 69,
    QI_INTERNAL = 70,
    QI_SYSTEM_LIMIT = 71,
    QI_CANNOT_CREATE = 73,
    QI_IO = 74,
    QI_TRY_AGAIN = 75,
    QI_PERMISSION = 77,
    QI_CONFIG = 78,
};

/* The exit status for 0, a QALLOW_E_* or a positive status (then itself). INTERRUPTED becomes
 * 128 + the signal. */
int qi_exit_status(int result);
/* The standard meaning of an exit status, for the manual; NULL if it has none. */
const char *qi_status_meaning(int status);

/* --- lines on stderr, each "qallow replay: text" --- */

/* Reports a failed call (its detail, or else its general text) and returns the exit status.
 * The launcher does this for what `run` returns; call it only to go on afterwards. */
int qi_report(const struct qi_context *context, int result);
void qi_error(const struct qi_context *context, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* "hint: text": what to do about the failure that is going to be reported; stands behind its line.
 * Not with --quiet. */
void qi_hint(const struct qi_context *context, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Something good to know. Not with --quiet. */
void qi_note(const struct qi_context *context, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* --- stdout --- */

/* 0 as long as no write to stdout has failed; otherwise QALLOW_E_IO or NO_SPACE with a detail, or
 * QALLOW_E_INTERRUPTED when the reader of a pipe went away (nothing is said then, and the exit
 * status is that of SIGPIPE, 141). Cheap: ask between the items of a long list. */
int qi_stdout_check(void);
/* Writes out what is buffered, then as above. The launcher does it at the end; a stream that
 * somebody waits for does it after every item. */
int qi_stdout_flush(void);
/* At the end of a command that ended with `status`: the exit status. Lost output is a failure, and
 * is said unless the command has reported it. The launcher does it. */
int qi_stdout_finish(const struct qi_context *context, int status);
/* After a failed write: the command goes on and succeeds without its output. */
void qi_stdout_forget(void);
/* Writes bytes to stdout, for `--output -`. Result as qi_stdout_check. */
int qi_stdout_write(const void *bytes, size_t length);

/* --- JSON --- */

/* A new object {"schema": "qallow.<command>", "version": 1}; "qallow checkpoint save" gives
 * "qallow.checkpoint.save". Building needs no error checks: running out of memory is found by
 * qi_json_end. */
cJSON *qi_json_begin(const struct qi_context *context);
/* Prints the object and a newline, frees it. One object to a line always, so a stream of them is
 * JSON lines. Result as qi_stdout_check, or NO_MEMORY. */
int qi_json_end(cJSON *object);
/* Exact integers (cJSON's own numbers are doubles). Return the item, or NULL. */
cJSON *qi_json_u64(cJSON *object, const char *name, uint64_t value);
cJSON *qi_json_i64(cJSON *object, const char *name, int64_t value);
void qi_json_time(cJSON *object, const char *name, int64_t ns); /* as RFC 3339 text */
void qi_json_hex(cJSON *object, const char *name, const void *bytes, size_t length);
/* A path or name from the world: text with U+FFFD for what is not UTF-8, and in that case also
 * "NAME_hex" with the exact bytes. */
void qi_json_path(cJSON *object, const char *name, const void *bytes, size_t length);

/* --- progress --- */

/* One line on stderr, rewritten at most ten times a second, only if stderr is a terminal that can
 * (TERM is not dumb) and not with --quiet. `total` 0: unknown. */
struct qi_progress {
    const struct qi_context *context;
    const char *what; /* "restoring" */
    int on;
    int64_t last_ns, start_ns;
};
void qi_progress_begin(struct qi_progress *progress, const struct qi_context *context,
                       const char *what);
void qi_progress_bytes(struct qi_progress *progress, uint64_t done, uint64_t total);
void qi_progress_end(struct qi_progress *progress); /* wipes the line */

/* --- signals --- */

/* From here on the first SIGINT, SIGTERM or SIGHUP only sets a flag, the second ends the process at
 * once with 128 + its number. For commands that have something to finish or to clean up; without
 * it a signal ends the process. */
void qi_signals_catch(void);
/* The signal that asked to stop, or 0. Async-signal-safe, any thread. */
int qi_signal_received(void);
/* A file descriptor that becomes readable with the first signal, for poll; -1 before
 * qi_signals_catch. Do not read from it. */
int qi_signal_fd(void);
/* From here on SIGHUP, unless a terminal sends it that has hung up, asks to read the configuration
 * again instead: the descriptor becomes readable, and the caller empties it. -1 if there is none.
 * After qi_signals_catch(). */
int qi_signals_reload_fd(void);
/* QALLOW_E_INTERRUPTED with a detail if a signal asked to stop, else 0. */
int qi_signal_check(void);

/* --- the process --- */

/* What holds for every command; the launcher calls it first. Descriptors 0 to 2 exist; stdout is a
 * stream that remembers why a write failed; SIGPIPE is ignored, because a recorder must outlive the
 * reader of its messages (a child process gets the default back: posix_spawnattr_setsigdefault);
 * failed asserts end with 70 and ask for a report. */
void qi_process_init(void);

/* Of --telemetry FILE (NULL: none): opens it at once, so that a file that cannot be written is said
 * before anything is done; then writes what has gathered. */
struct qt_csv;
int qi_telemetry_open(const char *path, struct qt_csv **csv);
void qi_telemetry_close(const struct qi_context *context, const char *path, struct qt_csv *csv);

/* Since some moment; for durations. */
int64_t qi_monotonic_ns(void);

#endif
