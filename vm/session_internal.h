/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of a session share. */
#ifndef QV_SESSION_INTERNAL_H
#define QV_SESSION_INTERNAL_H

#include "vm/session.h"

/* A page of a log: program.qvm, code/NAME and so on. */
struct qv_layout {
    char path[QV_MAX_FUNCTION_NAME + 8];
};

struct qv_session {
    struct qv_program *program;
    struct qv_machine *machine;
    struct qv_nodes *nodes;     /* NULL: the program derives no pages */
    uint64_t waves;             /* without a log: what stands for its epochs */
    int nodes_are_logged;       /* by the graph, in the epoch that is made */
    struct qallow_store *store; /* that is written; or NULL */
    uint64_t epoch;             /* the machine is as in this one */
    uint64_t *page_ids;         /* of the program's pages */
    uint64_t text_id, machine_id, emitted_id, code_id, data_id;
    struct qv_layout *layout; /* the pages of the log, in the order in which they are created */
    size_t layout_count;
    int follows;          /* there is a page `followed`: log and epoch that inputs are of */
    uint8_t followed[24]; /* what it holds */
    int followed_is_new;  /* not in the log yet */
    uint64_t followed_id;
    char *text;
    size_t text_length;
    int text_is_new;           /* not in the log yet */
    int was_patched;           /* the last epoch was a patch */
    struct qv_writer *writers; /* of each page, while something is explained */
    int threads;               /* as in the options */
    uint64_t set_fuel;         /* the same */
    uint64_t max_memory;
    uint8_t *buffer; /* for the state */
    size_t buffer_size;
};

/* A session without a log, its program before the first tick. */
int qv_session_new(const char *text, size_t length, const char *path,
                   const struct qv_session_options *options, struct qv_session **session);
/* The machine of an epoch (session_load.c). */
int qv_load(struct qallow_store *from, const char *log, uint64_t epoch,
            const struct qv_session_options *options, struct qv_session **session);
/* A page of at most `limit` bytes; to be freed with qr_free(). */
int qv_load_page(struct qallow_view *view, const char *path, uint64_t limit, uint8_t **bytes,
                 uint64_t *length);
/* Everything but the program, which must be that of the view. */
int qv_load_all(struct qv_session *session, struct qallow_view *view);
/* Which tick comes next in an epoch, and the fuel that all before it have used. */
struct qv_moment {
    uint64_t tick, fuel_used;
};
int qv_moment_of(struct qallow_store *log, uint64_t epoch, struct qv_moment *moment);
/* The next tick may use what it used when it was recorded; `behind` it was this. Functions of
 * derived pages may use what they need. */
void qv_fuel_as_recorded(struct qv_machine *machine, const struct qv_moment *behind);
/* Exchanges program, machine and what belongs to them. */
void qv_exchange(struct qv_session *a, struct qv_session *b);
/* Who looks at the machine goes on looking; counts go on under the names of the functions. */
int qv_carry_watch(const struct qv_machine *from, struct qv_machine *to);
/* Reads the page `followed`, if there is one. */
int qv_load_followed(struct qv_session *session, struct qallow_view *view);
/* Reads one page of the program from a view. */
int qv_load_data(struct qv_session *session, struct qallow_view *view, size_t page);
/* Sets the ids of pages to those of the view. */
int qv_find_pages(struct qv_session *session, struct qallow_view *view);
/* Brings derived pages up to date, for the epoch that comes next; is_logged: the log gets what
 * changes from the graph (qv_nodes_attach). */
int qv_session_derive(struct qv_session *session, int is_logged);
/* The same, and makes it all an epoch, if there is a log. */
int qv_session_commit(struct qv_session *session);
/* Nothing has been written to since. */
void qv_clear_dirty(struct qv_machine *machine);
void qv_set_input(struct qv_machine *machine, int page, const uint8_t *bytes, uint64_t length);

/* The pages of a program's new log; those of a view, by id, so that a branch gives them the same
 * ids as its origin has. */
int qv_layout_new(struct qv_session *session);
int qv_layout_of(struct qv_session *session, struct qallow_view *view);
/* Makes the log and its first epoch, which gets the label, if any (session_record.c). */
int qv_record_new(struct qv_session *session, const char *log, const struct qallow_options *options,
                  const char *label);
/* Commits what has changed since the last time. */
int qv_record_tick(struct qv_session *session, uint64_t *epoch);
/* The same after a patch: the code, and pages that are new (their page_ids are 0). */
int qv_record_patch(struct qv_session *session, uint64_t *epoch);
/* Forgets old definitions that no frame returns into. */
int qv_drop_retired(struct qv_session *session);

/* Goes on to the next epoch, `epoch`, of a log: a tick, or what changed from outside. */
int qv_step_again(struct qv_session *session, struct qallow_store *log, uint64_t epoch);

/* A whole file of at most `limit` bytes; to be freed with qr_free(). */
int qv_read_file(const char *path, uint64_t limit, uint8_t **bytes, uint64_t *length);

#endif
