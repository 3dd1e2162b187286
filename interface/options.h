/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line as data. A command is one struct qi_command: its words, its one table of
 * options and positional arguments, its examples. Parsing, --help, the messages for wrong usage,
 * shell completion, the manual pages and `help --json` are all made from that struct and from
 * nothing else, so they cannot disagree.
 *
 * How to add a command `frob`:
 *   1. interface/cmd_frob.c:
 *          struct frob { const char *log; uint64_t epoch; int dry_run; struct qi_list excludes; };
 *          static const struct qi_option options[] = {
 *              {.name = "LOG", .positional = true, .required = true, QI_FIELD(struct frob, log),
 *               .kind = QI_TEXT, .help = "the log to frob"},
 *              {.name = "epoch", .letter = 'e', .kind = QI_NUMBER, QI_FIELD(struct frob, epoch),
 *               .argument = "N", .help = "frob this epoch"},
 *              {.name = "dry-run", .kind = QI_FLAG, QI_FIELD(struct frob, dry_run),
 *               .help = "say what would be done, change nothing"},
 *              {.name = NULL}};
 *          static int run(struct qi_context *context, const void *values)
 *          {
 *              const struct frob *frob = values;
 *              if (!qi_given(context, "epoch") && !frob->dry_run)
 *                  return qi_usage(context, "--epoch N or --dry-run");   // what was expected
 *              ...
 *              return rc;  // 0, a negative QALLOW_E_* or a positive exit status, see `run` below
 *          }
 *          const struct qi_command qi_command_frob = {
 *              .name = "frob", .summary = "...", .description = "...", .options = options,
 *              .values_size = sizeof(struct frob), .run = run,
 *              .examples = (const struct qi_example[]){{"qallow frob work.tlog -e 7", "..."}, {0}},
 *              .exits = (const struct qi_exit[]){{0, NULL}, {65, NULL}, {0}}};
 *   2. declare it in interface/commands.h, list it in the table at the top of interface/launcher.c
 *      and in `commands` of interface/meson.build (that also makes its manual page);
 *   3. cases in tests/cli/cases/.
 * A command with actions (`qallow checkpoint save`) has .actions instead of .options and .run; each
 * action is a struct qi_command of its own. For what commands share (errors, JSON, progress,
 * signals) see interface/report.h.
 */
#ifndef QI_OPTIONS_H
#define QI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What an option's text means and the type of the field it is stored in. */
enum qi_kind {
    QI_FLAG,     /* no value              -> int: 1 given, 0 with --no-NAME (if negatable) */
    QI_TEXT,     /* any text but none     -> const char *, into argv */
    QI_NUMBER,   /* decimal               -> int or unsigned (up to 2^31 - 1) or uint64_t, within
                                             [minimum, maximum] */
    QI_SIZE,     /* 4096, 10K, 1.5G       -> uint64_t bytes, powers of 1024 */
    QI_DURATION, /* 500ms, 10s, 2h, 7d    -> int64_t nanoseconds */
    QI_TIME,     /* RFC 3339              -> int64_t nanoseconds since 1970 */
    QI_CHOICE,   /* one of choices        -> int, its index */
    QI_LIST,     /* text, repeatable      -> struct qi_list */
    QI_CUSTOM,   /* whatever .parse takes */
};

struct qi_list {
    const char **items; /* into argv */
    size_t count;
};

/*
 * One option, or (positional) one argument without a dash. Tables end with {.name = NULL}.
 * Positional arguments come in the table's order: required ones first, a QI_LIST last.
 */
struct qi_option {
    const char *name;     /* without dashes; of a positional: its word in the usage line, "LOG" */
    char letter;          /* -x, or 0 */
    enum qi_kind kind;
    const char *argument; /* the value's word in help; FILE or LOG: completed as a file name, DIR:
                             as a directory (also the name of a positional) */
    const char *help;     /* one line, lower case, no full stop */
    size_t offset, size;  /* the field; write QI_FIELD(struct, member) */
    const char *fallback; /* the default, as text; shown in help and parsed like the user's own.
                             NULL: the field stays 0 */
    const char *implied;  /* the value may be left out and is then this one. The next argument is
                             its value only if it is a valid one: for QI_CHOICE and QI_CUSTOM */
    const char *unit;     /* QI_DURATION: unit of a bare number; NULL: a unit must be given */
    uint64_t minimum, maximum; /* QI_NUMBER, QI_SIZE; QI_DURATION in ns; maximum 0: none */
    const char *const *choices; /* QI_CHOICE, NULL-terminated; others: proposed by completion */
    /* QI_CUSTOM: stores the value at `field` and returns NULL, or returns what was expected
     * ("an epoch range like 3..7") and stores nothing. */
    const char *(*parse)(const char *text, void *field);
    const char *group; /* at most one option of the same group may be given */
    unsigned modes; /* bits: the modes of the command that it goes with; 0: all of them */
    bool positional;
    bool required;
    bool negatable; /* --no-NAME undoes an earlier --NAME or a fallback of "1" */
    bool hidden;    /* works, but is not shown */
};

#define QI_FIELD(type, member)                                                                     \
    .offset = offsetof(type, member), .size = sizeof(((type *)0)->member)

struct qi_example {
    const char *line; /* a command line that works as it stands; the first is shown on errors */
    const char *what; /* what it does, lower case, no full stop */
};

struct qi_exit {
    int status;
    const char *meaning; /* NULL: the standard meaning */
};

struct qi_context;

struct qi_command {
    const char *name;
    const char *summary;     /* one line, lower case, no full stop */
    const char *description; /* paragraphs divided by empty lines */
    const struct qi_option *options;       /* or NULL */
    const struct qi_example *examples;     /* ends with {0} */
    const struct qi_exit *exits;           /* ends with a second {0}; 0, 64 and 70 are implied */
    const struct qi_command *const *actions; /* NULL-terminated, or NULL */
    const char *const *modes; /* what its modes are called, bit 0 first; NULL-terminated, or NULL */
    size_t values_size;
    bool hidden;
    /* `values`: the parsed struct. Returns 0, or a negative QALLOW_E_* that the launcher reports
     * with its detail and turns into the exit status, or a positive exit status for which
     * everything has been said. */
    int (*run)(struct qi_context *context, const void *values);
};

/* A command line being parsed and run. Commands read the first group only. */
struct qi_context {
    const struct qi_command *command;
    const struct qi_command *root;
    char path[96];  /* "qallow checkpoint save" */
    int json;       /* --json */
    int quiet;      /* --quiet */

    int help;            /* --help was asked for: nothing else was checked */
    void *values;         /* command->values_size bytes */
    unsigned char *given; /* how often, by index into command->options */
    char error[512];      /* set when parsing fails: what was expected */
};

/* Options every command has: --help, --json, --quiet. */
extern const struct qi_option qi_common_options[];

/* The i-th option of a command: its own, then the common ones, then NULL. */
const struct qi_option *qi_option_at(const struct qi_command *command, size_t i);

/* 1 if the user gave this option or positional (a fallback does not count). Own options only. */
int qi_given(const struct qi_context *context, const char *name);

/* Parses argv[1..argc) down from `root`. 0; QALLOW_E_ARGUMENT with context->error set; NO_MEMORY.
 * The context is zeroed before, and finished by the caller after, also on failure. */
int qi_parse(struct qi_context *context, const struct qi_command *root, int argc,
             const char *const *argv);
void qi_context_finish(struct qi_context *context);

/* The action of `command` with this name; NULL if there is none, then `error` says so. */
const struct qi_command *qi_find_action(const struct qi_command *command, const char *name,
                                        char *error, size_t error_size);

/* For wrong usage that no table can express: says on stderr "expected ..." and shows a line that
 * works; returns 64. */
int qi_usage(struct qi_context *context, const char *expected, ...)
    __attribute__((format(printf, 2, 3)));

/* For a command of several modes, once it knows in which one (a single bit) it is: 0, or wrong
 * usage as above if an option was given that does not go with it. */
int qi_check_mode(struct qi_context *context, unsigned mode);

/* After qi_parse failed: the same for context->error. */
int qi_usage_error(const struct qi_context *context);

/* How far two words are apart: insertions, removals, replacements, swaps of neighbours. */
size_t qi_distance(const char *a, const char *b);

#endif
