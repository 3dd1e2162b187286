/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of a session share. */
#ifndef QV_SESSION_INTERNAL_H
#define QV_SESSION_INTERNAL_H

#include "vm/session.h"

enum { QV_MAX_TEXT = 4 << 20 }; /* bytes of a program */

struct qv_session {
    struct qv_program *program;
    struct qv_machine *machine;
    struct qallow_store *store; /* that is written; or NULL */
    uint64_t epoch;             /* the machine is as in this one */
    uint64_t *page_ids;         /* of the program's pages */
    uint64_t machine_id, emitted_id;
    char *text;
    size_t text_length;
    uint8_t *buffer; /* for the state */
    size_t buffer_size;
};

/* A session without a log, its program before the first tick. */
int qv_session_new(const char *text, size_t length, const char *path,
                   const struct qv_session_options *options, struct qv_session **session);
/* The machine of an epoch (session_load.c). */
int qv_load(struct qallow_store *from, const char *log, uint64_t epoch,
            const struct qv_session_options *options, struct qv_session **session);
/* Reads one page of the program from a view. */
int qv_load_data(struct qv_session *session, struct qallow_view *view, size_t page);
/* Sets page_ids, machine_id and emitted_id to those of the view. */
int qv_find_pages(struct qv_session *session, struct qallow_view *view);
void qv_set_input(struct qv_machine *machine, int page, const uint8_t *bytes, uint64_t length);

/* Makes the log and its first epoch, which gets the label, if any (session_record.c). */
int qv_record_new(struct qv_session *session, const char *log, const struct qallow_options *options,
                  const char *label);
/* Commits what has changed since the last time. */
int qv_record_tick(struct qv_session *session, uint64_t *epoch);

/* A whole file of at most `limit` bytes; to be freed with qr_free(). */
int qv_read_file(const char *path, uint64_t limit, uint8_t **bytes, uint64_t *length);

#endif
