/* SPDX-License-Identifier: Apache-2.0 */
/* From files of tensors to the pages that they are: what is to be saved, before it is read. */
#ifndef QS_TENSOR_PLAN_H
#define QS_TENSOR_PLAN_H

#include <sys/stat.h>

#include "runtime/batch.h"
#include "sources/tensor_internal.h"

/* One file. */
struct qs_tensor_file {
    char *path;
    const char *name; /* within path */
    int fd;
    struct stat before; /* reading */
    enum qs_tensor_format format;
    struct qs_tensors tensors; /* of an index: none */
    uint64_t page;
};

/* One page with bytes of a file: a header, a tensor or an index. */
struct qs_tensor_page {
    const struct qs_tensor_file *file;
    uint64_t id, from, size; /* from: in the file */
    unsigned width;
    int is_tensor, is_new;
    struct qr_content old;
    struct qb_u128 sum; /* of the old content; becomes that of the new one */
    struct qr_edits edits;
};

struct qs_tensor_plan {
    struct qr_store *store;
    struct qr_txn *txn;
    struct qr_batch *batch; /* of all records but the deltas */
    struct qs_tensor_file *files;
    size_t file_count, file_capacity;
    struct qs_tensor_page *pages;
    size_t page_count, page_capacity;
    struct qs_tensor_save *result;
};
/* Opens and checks the files; then, with `txn` and `batch` there, says what becomes of which page.
 * Both leave what they made for qs_tensor_plan_finish. */
int qs_tensor_plan_open(struct qs_tensor_plan *plan, const char *path,
                        enum qs_tensor_format format);
int qs_tensor_plan_pages(struct qs_tensor_plan *plan);
/* BUSY if a file is not what it was when it was opened. */
int qs_tensor_plan_check(const struct qs_tensor_plan *plan);
void qs_tensor_plan_finish(struct qs_tensor_plan *plan);

#endif
