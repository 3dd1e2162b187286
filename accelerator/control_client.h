/* SPDX-License-Identifier: Apache-2.0 */
/* Asking the recorder that owns a log. The protocol: docs/accelerator.md, "The socket". */
#ifndef QA_CONTROL_CLIENT_H
#define QA_CONTROL_CLIENT_H

/* Sends one request (a JSON object) to the process that records into this log and waits for its
 * answer. 0: *reply_json is the answer, one JSON object, freed by the caller with qr_free().
 * UNAVAILABLE: nobody records into this log, or it ended before answering. Any other error is the
 * recorder's own, with its text as detail. Thread-safety: safe. */
int qa_control_request(const char *log_path, const char *request_json, char **reply_json);

#endif
