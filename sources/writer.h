/* SPDX-License-Identifier: Apache-2.0 */
/* Writing the content of pages into files, checked on the way. */
#ifndef QS_WRITER_H
#define QS_WRITER_H

#include "runtime/store.h"

struct qs_writer {
    struct qr_reader *reader;
    uint8_t *buffer; /* QS_WRITER_BUFFER bytes */
};
enum { QS_WRITER_BUFFER = 1 << 20, QS_WRITER_CACHE = 4 << 20,
       QS_WRITER_MEMORY = QS_WRITER_BUFFER + QS_WRITER_CACHE + (2 << 20) };

int qs_writer_init(struct qs_writer *writer, struct qr_store *store);
void qs_writer_finish(struct qs_writer *writer);

/*
 * Writes the content of a file's page to an empty file; long runs of zeros become holes. fd < 0:
 * only reads. DAMAGED if the content does not have the sum that the page has; a failed write says
 * `path`.
 */
int qs_write_content(struct qs_writer *writer, const struct qr_page *page, int fd,
                     const char *path);
/* Makes a symlink from its page. */
int qs_write_symlink(struct qs_writer *writer, const struct qr_page *page, int directory_fd,
                     const char *name, const char *path);
/* Is the content of the open file that of the page? 1 or 0, or an error. */
int qs_same_content(struct qs_writer *writer, const struct qr_page *page, int fd);
/* A page's name is fit for a directory, and so on up to its root. SERIALIZATION if not. */
int qs_page_check(const struct qr_page *page);

#endif
