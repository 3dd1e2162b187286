/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of a scan share: scan.c walks, scan_steps.c notes, scan_inodes.c knows inodes. */
#ifndef QS_SCAN_H
#define QS_SCAN_H

#include "sources/tree_internal.h"

/* One directory on the way down to where the scan is. */
struct qs_frame {
    struct qs_frame *up;
    uint64_t page;      /* 0: it is to be created */
    uint32_t place;     /* 0: none yet */
    int fd, depth;
    size_t path_length; /* of its path, which is a prefix of scan->path */
};

/* --- scan_steps.c --- */
int qs_scan_no_memory(void);
int qs_scan_mark(struct qs_scan *scan, struct qr_page *page, enum qs_mark bit);
void qs_scan_clear_marks(struct qs_scan *scan, int everywhere);
/* The place of a directory whose path is the first `length` bytes of `path`. */
int qs_scan_new_place(struct qs_scan *scan, uint64_t page, const char *path, size_t length,
                      uint32_t *place);
int qs_scan_place(struct qs_scan *scan, struct qs_frame *frame, uint32_t *place);
/* Appends a step about the entry `name` in a directory; frame NULL: about the root itself. */
int qs_scan_add(struct qs_scan *scan, enum qs_pass pass, enum qs_action action,
                struct qs_frame *frame, const char *name, const struct stat *st, uint64_t page);
struct qs_step *qs_scan_last(struct qs_scan *scan, enum qs_pass pass);
/* Brings the steps of each pass into an order in which they can be made. */
int qs_scan_order(struct qs_scan *scan);
/* QR_KIND_*, or 0 for what is never recorded. */
uint8_t qs_kind_of(const struct stat *st);

/* --- scan_inodes.c --- */
/*
 * Looks for the page that this entry's inode belonged to. *renamed: its path is gone, so this is
 * where it went. *copied: a file whose path is still there, so the content is likely the same.
 */
int qs_scan_origin(struct qs_scan *scan, const struct stat *st, struct qr_page **renamed,
                   struct qr_page **copied);
/* The page goes on under the path that is looked at. */
int qs_scan_claim(struct qs_scan *scan, struct qr_page *page);
/* Queues the other names of a file, all pages known with this inode but for `except`, if they have
 * changed. Only needed when not everything is scanned anyway. */
int qs_scan_other_names(struct qs_scan *scan, uint64_t device, uint64_t inode,
                        const struct qr_page *except);
/* The page's path is gone: unless somebody claims it, it is freed in the end. */
int qs_scan_vanish(struct qs_scan *scan, struct qr_page *page);
int qs_scan_free(struct qs_scan *scan, enum qs_pass pass, struct qr_page *page);
/* Frees what has vanished and was not claimed. */
int qs_scan_free_vanished(struct qs_scan *scan);

#endif
