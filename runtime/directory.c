/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory of a log: where the commits and keyframes stand, what labels mean, and where
 * content went that a prune moved. Kept in memory, saved in the index, had again by a scan.
 */
#include "runtime/error.h"
#include "runtime/store_internal.h"

#include <stdlib.h>

char *qr_path_with(const char *path, const char *suffix)
{
    size_t a = strlen(path), b = strlen(suffix) + 1;
    char *joined = qr_malloc(a + b);
    if (!joined) {
        qr_fail(QALLOW_E_NO_MEMORY, "%s", qr_quotez(path));
        return NULL;
    }
    memcpy(joined, path, a);
    memcpy(joined + a, suffix, b);
    return joined;
}

void qr_directory_finish(struct qr_directory *d)
{
    for (size_t i = 0; i < d->label_count; i++)
        qr_free(d->labels[i].name);
    qr_free(d->labels);
    qr_free(d->commits);
    qr_free(d->keyframes);
    qr_free(d->relocations);
    qr_free(d->relocation_frames);
    *d = (struct qr_directory){.commit_base = 0};
}

int qr_directory_add_commit(struct qr_directory *d, uint64_t epoch, uint64_t offset)
{
    if (!d->commit_count)
        d->commit_base = epoch;
    if (epoch >= d->commit_base && epoch - d->commit_base < d->commit_count) {
        d->commits[epoch - d->commit_base] = offset; /* read once more, after a salvage */
        return 0;
    }
    qr_assert(epoch >= d->commit_base && epoch < QR_EPOCH_MAX);
    while (d->commit_base + d->commit_count <= epoch) {
        int rc = QR_GROW(d->commits, d->commit_count, d->commit_capacity);
        if (rc)
            return rc;
        d->commits[d->commit_count++] = 0;
    }
    d->commits[d->commit_count - 1] = offset;
    return 0;
}

void qr_directory_cut(struct qr_directory *d, uint64_t last)
{
    while (d->commit_count && d->commit_base + d->commit_count - 1 > last)
        d->commit_count--;
    while (d->keyframe_count && d->keyframes[d->keyframe_count - 1].epoch > last)
        d->keyframe_count--;
}

uint64_t qr_directory_last_epoch(const struct qr_directory *d)
{
    return d->commit_count ? d->commit_base + d->commit_count - 1 : 0;
}

uint64_t qr_directory_commit(const struct qr_directory *d, uint64_t epoch)
{
    if (!d->commit_count || epoch < d->commit_base || epoch - d->commit_base >= d->commit_count)
        return 0;
    return d->commits[epoch - d->commit_base];
}

int qr_directory_add_keyframe(struct qr_directory *d, uint64_t epoch, uint64_t offset)
{
    size_t i = d->keyframe_count;
    while (i && d->keyframes[i - 1].epoch >= epoch)
        i--;
    if (i < d->keyframe_count && d->keyframes[i].epoch == epoch) {
        d->keyframes[i].offset = offset;
        return 0;
    }
    int rc = QR_GROW(d->keyframes, d->keyframe_count, d->keyframe_capacity);
    if (rc)
        return rc;
    memmove(d->keyframes + i + 1, d->keyframes + i,
            (d->keyframe_count - i) * sizeof *d->keyframes);
    d->keyframes[i] = (struct qr_keyframe){epoch, offset};
    d->keyframe_count++;
    return 0;
}

static struct qr_label *find_label(const struct qr_directory *d, const void *name, size_t length)
{
    for (size_t i = 0; i < d->label_count; i++)
        if (strlen(d->labels[i].name) == length && !memcmp(d->labels[i].name, name, length))
            return &d->labels[i];
    return NULL;
}

uint64_t qr_directory_label(const struct qr_directory *d, const void *name, size_t length)
{
    const struct qr_label *label = find_label(d, name, length);
    return label ? label->epoch : 0;
}

int qr_directory_set_label(struct qr_directory *d, const void *name, size_t length, uint64_t epoch)
{
    struct qr_label *label = find_label(d, name, length);
    if (label) {
        label->epoch = epoch;
        if (!epoch) {
            qr_free(label->name);
            *label = d->labels[--d->label_count];
        }
        return 0;
    }
    if (!epoch)
        return 0;
    int rc = QR_GROW(d->labels, d->label_count, d->label_capacity);
    char *copy = rc ? NULL : qr_malloc(length + 1);
    if (!copy)
        return rc ? rc : qr_fail(QALLOW_E_NO_MEMORY, "label");
    memcpy(copy, name, length);
    copy[length] = 0;
    d->labels[d->label_count++] = (struct qr_label){copy, epoch};
    return 0;
}

void qr_directory_drop_labels(struct qr_directory *d, uint64_t first)
{
    size_t kept = 0;
    for (size_t i = 0; i < d->label_count; i++)
        if (d->labels[i].epoch >= first)
            d->labels[kept++] = d->labels[i];
        else
            qr_free(d->labels[i].name);
    d->label_count = kept;
}

int qr_directory_add_relocation_frame(struct qr_directory *d, uint64_t offset)
{
    int rc = QR_GROW(d->relocation_frames, d->relocation_frame_count, d->relocation_frame_capacity);
    if (!rc)
        d->relocation_frames[d->relocation_frame_count++] = offset;
    return rc;
}

int qr_directory_add_relocations(struct qr_directory *d, uint64_t offset, const uint8_t *body,
                                 size_t length)
{
    struct qr_cursor c = qr_cursor(body, length);
    uint64_t count = qr_get_varint(&c);
    for (uint64_t i = 0; i < count && !c.bad; i++) {
        qr_ref old = qr_get_u64(&c);
        uint64_t n = qr_get_varint(&c);
        const uint8_t *bytes = qr_get_bytes(&c, n);
        if (!bytes || !n)
            break;
        int rc = QR_GROW(d->relocations, d->relocation_count, d->relocation_capacity);
        if (rc)
            return rc;
        d->relocations[d->relocation_count++] = (struct qr_relocation){
            old, qr_ref_make(offset, (uint64_t)(bytes - body)), n};
    }
    if (c.bad || c.at != c.end)
        return qr_fail(QALLOW_E_SERIALIZATION, "a malformed relocation frame at offset %llu",
                       (unsigned long long)offset);
    return 0;
}

static int compare_relocations(const void *a, const void *b)
{
    const struct qr_relocation *x = a, *y = b;
    if (x->old != y->old)
        return x->old < y->old ? -1 : 1;
    return x->now < y->now ? 1 : x->now > y->now ? -1 : 0; /* the newer one first */
}

/* Makes the ranges disjoint. Those that overlap hold the same bytes, but a later one need not hold
 * all of an earlier one: it was made for a later epoch, and its prune may not have come to an end.
 * So only what the ranges before it do not cover is taken of each. */
void qr_directory_sort_relocations(struct qr_directory *d)
{
    size_t kept = 0;
    uint64_t covered = 0; /* everything known lies before this reference */
    if (d->relocation_count)
        qsort(d->relocations, d->relocation_count, sizeof *d->relocations, compare_relocations);
    for (size_t i = 0; i < d->relocation_count; i++) {
        struct qr_relocation r = d->relocations[i];
        uint64_t skip = covered > r.old ? covered - r.old : 0;
        if (skip >= r.length || r.length > UINT64_MAX - r.old)
            continue;
        covered = r.old + r.length;
        d->relocations[kept++] =
            (struct qr_relocation){r.old + skip, r.now + skip, r.length - skip};
    }
    d->relocation_count = kept;
}

qr_ref qr_directory_resolve(const struct qr_directory *d, uint64_t start, qr_ref ref,
                            uint64_t *length)
{
    if (ref == QR_REF_ZERO || qr_ref_frame(ref) >= start)
        return ref;
    size_t low = 0, high = d->relocation_count; /* the last entry that begins at or before ref */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (d->relocations[middle].old <= ref)
            low = middle + 1;
        else
            high = middle;
    }
    if (!low)
        return ref;
    const struct qr_relocation *r = &d->relocations[low - 1];
    uint64_t into = ref - r->old;
    if (into >= r->length)
        return ref;
    if (*length > r->length - into)
        *length = r->length - into;
    return r->now + into;
}
