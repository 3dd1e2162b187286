/* SPDX-License-Identifier: Apache-2.0 */
/* What the files about tensors share. */
#ifndef QS_TENSOR_INTERNAL_H
#define QS_TENSOR_INTERNAL_H

#include "sources/tensor.h"

#define QS_HEADER_NAME "__metadata__" /* the page of the bytes in front of the data */

enum {
    /* Content is read, compared, encoded and decoded in chunks of this size: what is needed of one
     * fits into the second level of the cache. */
    QS_CHUNK = 512 << 10,
};

/* Reads all of it. BUSY if the file is shorter than it was. */
int qs_read_exactly(int fd, const char *path, void *to, size_t length, uint64_t offset);

/* What the extra bytes of a file's page say; QS_NO_TENSORS: it is something else. */
enum qs_tensor_format qs_tensor_format_of_page(const struct qr_page *page);
/* The extra bytes for it. */
const char *qs_tensor_format_name(enum qs_tensor_format format);

#endif
