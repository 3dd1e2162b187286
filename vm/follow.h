/* SPDX-License-Identifier: Apache-2.0 */
/* Inputs that change while a machine runs. Each change is an epoch, in which derived pages follow;
 * the caller then runs a tick, if the machine has not halted. */
#ifndef QV_FOLLOW_H
#define QV_FOLLOW_H

#include "vm/session.h"

enum { QV_MAX_FOLLOWED = 1023 }; /* bytes of the path of a page */

struct qv_follow;
/* The inputs of a session that was made with `follows` are pages of another log, which may be in
 * use: of the same names, or of the paths given. It goes on where the session's log says it was.
 * ARGUMENT: not such a session, another log than before, no such input. Otherwise as qallow_open.
 */
int qv_follow_open(struct qv_session *session, const char *log, const struct qv_input *inputs,
                   size_t count, struct qv_follow **follow);
/* Takes the next epoch that changes an input: 1; 0: there is none yet. LIMIT: a page is too large;
 * FUNCTION: as of a tick. */
int qv_follow_next(struct qv_follow *follow);
void qv_follow_close(struct qv_follow *follow);

/* A frame of a stream (follow.c has the format): 0, or 1 when it was the last one of an epoch.
 * ARGUMENT, LIMIT, SERIALIZATION, FUNCTION. */
int qv_session_take_frame(struct qv_session *session, uint8_t type, const uint8_t *data,
                          uint32_t length);
/* Bytes of data that a frame of the session may have. */
uint32_t qv_session_frame_limit(const struct qv_session *session);

#endif
