/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing the content of pages into files.
 *
 * Every byte is summed on its way to the file, and the sum compared with the one that the log has
 * for the page: what was written is what was recorded, or the restore fails. Zeros that the log
 * stores as a hole are not written.
 */
#include "sources/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "runtime/digest.h"
#include "sources/path.h"
#include "sources/stop.h"

enum { HOLE_MIN = 4096, LINK_MAX_BYTES = 64 * 1024 };

int qs_writer_init(struct qs_writer *writer, struct qr_store *store)
{
    *writer = (struct qs_writer){0};
    if (!(writer->buffer = qr_malloc(QS_WRITER_BUFFER)))
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory to write files");
    return qr_reader_create(store, QS_WRITER_CACHE, &writer->reader);
}

void qs_writer_finish(struct qs_writer *writer)
{
    qr_reader_destroy(writer->reader);
    qr_free(writer->buffer);
    *writer = (struct qs_writer){0};
}

int qs_page_check(const struct qr_page *page)
{
    if (!qs_name_is_valid(page->name, page->name_length))
        return qr_fail(QALLOW_E_SERIALIZATION, "page %llu: its name \"%s\" cannot be a file's",
                       (unsigned long long)page->id, qr_quote(page->name, page->name_length));
    return 0;
}

/* The next stretch of content at piece *i: a hole, or data up to the next one. */
static uint64_t next_stretch(const struct qr_content *content, size_t *i, int *is_hole)
{
    uint64_t length = 0;
    *is_hole = 0;
    for (; *i < content->piece_count; ++*i) {
        const struct qr_piece *piece = &content->pieces[*i];
        if (piece->ref == QR_REF_ZERO && piece->length >= HOLE_MIN) {
            if (length)
                return length;
            *is_hole = 1;
            ++*i;
            return piece->length;
        }
        length += piece->length;
    }
    return length;
}

/* Called with each portion of the content, in order; bytes NULL: zeros. */
typedef int (*portion_function)(void *context, const uint8_t *bytes, size_t length,
                                uint64_t offset);

static int each_portion(struct qs_writer *writer, const struct qr_page *page,
                        portion_function portion, void *context)
{
    struct qr_content content = {0};
    uint64_t at = 0;
    int is_hole, rc = qr_content_init(&content, page);
    for (size_t i = 0; rc == 0 && i < content.piece_count;) {
        uint64_t left = next_stretch(&content, &i, &is_hole);
        while (rc == 0 && left && (rc = qs_stop()) == 0) {
            size_t n = is_hole ? (left < (1u << 30) ? (size_t)left : 1u << 30)
                       : left < QS_WRITER_BUFFER ? (size_t)left
                                                 : QS_WRITER_BUFFER;
            if (!is_hole)
                rc = qr_content_read(writer->reader, &content, at, writer->buffer, n);
            if (rc == 0)
                rc = portion(context, is_hole ? NULL : writer->buffer, n, at);
            at += n;
            left -= n;
        }
    }
    qr_content_finish(&content);
    return rc;
}

struct output {
    int fd;
    const char *path;
    struct qr_cell_hasher cells;
};

static int write_portion(void *context, const uint8_t *bytes, size_t length, uint64_t offset)
{
    struct output *output = context;
    if (!bytes) {
        qr_cells_zeros(&output->cells, length);
        return 0;
    }
    qr_cells_update(&output->cells, bytes, length);
    if (output->fd >= 0 && qs_write_all(output->fd, bytes, length, offset) < 0)
        return qr_fail_errno(errno, "%s", qr_quotez(output->path));
    return 0;
}

static int check_sum(const struct qr_page *page, struct qb_u128 sum, const char *path)
{
    if (qb_u128_equal(sum, page->content_sum))
        return 0;
    return qr_fail(QALLOW_E_DAMAGED, "%s (page %llu): its content does not have its digest",
                   qr_quotez(path), (unsigned long long)page->id);
}

int qs_write_content(struct qs_writer *writer, const struct qr_page *page, int fd,
                     const char *path)
{
    struct output output = {.fd = fd, .path = path};
    qr_cells_init(&output.cells, page->id, 0);
    int rc = each_portion(writer, page, write_portion, &output);
    if (rc == 0)
        rc = check_sum(page, qr_cells_finish(&output.cells), path);
    /* A hole at the end has written nothing. */
    if (rc == 0 && fd >= 0 && page->size && ftruncate(fd, (off_t)page->size) < 0)
        rc = qr_fail_errno(errno, "%s", qr_quotez(path));
    return rc;
}

int qs_write_symlink(struct qs_writer *writer, const struct qr_page *page, int directory_fd,
                     const char *name, const char *path)
{
    struct qr_content content = {0};
    char *target = (char *)writer->buffer;
    if (page->size == 0 || page->size >= LINK_MAX_BYTES)
        return qr_fail(QALLOW_E_SERIALIZATION, "%s (page %llu): a symlink of %llu bytes",
                       qr_quotez(path), (unsigned long long)page->id,
                       (unsigned long long)page->size);
    int rc = qr_content_init(&content, page);
    if (rc == 0)
        rc = qr_content_read(writer->reader, &content, 0, target, (size_t)page->size);
    qr_content_finish(&content);
    if (rc == 0)
        rc = check_sum(page, qr_cells_of(page->id, target, (size_t)page->size), path);
    if (rc < 0)
        return rc;
    target[page->size] = 0;
    if (strlen(target) != page->size)
        return qr_fail(QALLOW_E_SERIALIZATION, "%s (page %llu): a symlink with a NUL in it",
                       qr_quotez(path), (unsigned long long)page->id);
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, qs_timespec(page->mtime_ns)};
    if (symlinkat(target, directory_fd, name) < 0 ||
        utimensat(directory_fd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return qr_fail_errno(errno, "%s", qr_quotez(path));
    return 0;
}

/* Compares portions with a file. */
struct comparison {
    int fd;
    uint8_t *buffer;
};

static int compare_portion(void *context, const uint8_t *bytes, size_t length, uint64_t offset)
{
    struct comparison *c = context;
    while (length) {
        size_t n = length < QS_WRITER_BUFFER ? length : QS_WRITER_BUFFER;
        ssize_t got = pread(c->fd, c->buffer, n, (off_t)offset);
        if (got <= 0)
            return got < 0 && errno == EINTR ? compare_portion(c, bytes, length, offset)
                                             : QALLOW_E_DIFFERS;
        n = (size_t)got;
        if (bytes ? memcmp(bytes, c->buffer, n) != 0 : !qb_kernels()->is_zero(c->buffer, n))
            return QALLOW_E_DIFFERS;
        bytes = bytes ? bytes + n : NULL;
        length -= n;
        offset += n;
    }
    return 0;
}

int qs_same_content(struct qs_writer *writer, const struct qr_page *page, int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != page->size)
        return 0;
    struct comparison c = {fd, qr_malloc(QS_WRITER_BUFFER)};
    if (!c.buffer)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory to compare files");
    int rc = each_portion(writer, page, compare_portion, &c);
    qr_free(c.buffer);
    return rc == QALLOW_E_DIFFERS ? 0 : rc < 0 ? rc : 1;
}
