/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a scan notes down: marks on pages, and the steps that it found, in their passes.
 *
 * A step names its file by a place (a directory, by its path) and a name, because its page may not
 * exist yet, or stand elsewhere by now.
 */
#include "sources/scan.h"

#include <stdlib.h>
#include <string.h>

#include "sources/path.h"

int qs_scan_no_memory(void) { return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the scan"); }

int qs_scan_mark(struct qs_scan *scan, struct qr_page *page, enum qs_mark bit)
{
    if (QR_GROW(scan->touched, scan->touched_count, scan->touched_capacity) < 0)
        return QALLOW_E_NO_MEMORY;
    scan->touched[scan->touched_count++] = page->id;
    page->mark |= (uint8_t)bit;
    return 0;
}

void qs_scan_clear_marks(struct qs_scan *scan, int everywhere)
{
    for (size_t i = 0; i < scan->touched_count; i++)
        qr_state_find(scan->state, scan->touched[i])->mark = 0;
    if (everywhere)
        for (struct qr_page *page = qr_state_next_page(scan->state, 0); page;
             page = qr_state_next_page(scan->state, page->id))
            page->mark = 0;
}

int qs_scan_new_place(struct qs_scan *scan, uint64_t page, const char *path, size_t length,
                      uint32_t *place)
{
    if (QR_GROW(scan->places, scan->place_count, scan->place_capacity) < 0)
        return QALLOW_E_NO_MEMORY;
    char *copy = qr_malloc(length + 1);
    if (!copy)
        return qs_scan_no_memory();
    memcpy(copy, path, length);
    copy[length] = 0;
    scan->places[scan->place_count] = (struct qs_place){page, copy};
    *place = (uint32_t)scan->place_count++;
    return 0;
}

int qs_scan_place(struct qs_scan *scan, struct qs_frame *frame, uint32_t *place)
{
    int rc = frame->place ? 0
                          : qs_scan_new_place(scan, frame->page, scan->path, frame->path_length,
                                              &frame->place);
    *place = frame->place;
    return rc;
}

uint8_t qs_kind_of(const struct stat *st)
{
    return S_ISREG(st->st_mode)   ? QR_KIND_FILE
           : S_ISDIR(st->st_mode) ? QR_KIND_DIRECTORY
           : S_ISLNK(st->st_mode) ? QR_KIND_SYMLINK
                                  : 0;
}

int qs_scan_add(struct qs_scan *scan, enum qs_pass pass, enum qs_action action,
                struct qs_frame *frame, const char *name, const struct stat *st, uint64_t page)
{
    struct qs_steps *changes = &scan->passes[pass];
    struct qs_step change = {.page = page, .action = (uint8_t)action};
    if (st) {
        change.kind = qs_kind_of(st);
        change.size = change.kind == QR_KIND_DIRECTORY ? 0 : (uint64_t)st->st_size;
        change.mode = st->st_mode & 07777;
        change.mtime_ns = qs_ns(st->st_mtim);
        change.stat = qs_stat_cache(st, 0);
        /* A directory's content is its entries, which are all looked at each time. */
        change.stat_known = change.kind == QR_KIND_DIRECTORY;
    }
    if (frame && qs_scan_place(scan, frame, &change.place) < 0)
        return QALLOW_E_NO_MEMORY;
    if (QR_GROW(changes->items, changes->count, changes->capacity) < 0)
        return QALLOW_E_NO_MEMORY;
    if (name && !(change.name = qs_path_join("", name)))
        return qs_scan_no_memory();
    changes->items[changes->count++] = change;
    return 0;
}

struct qs_step *qs_scan_last(struct qs_scan *scan, enum qs_pass pass)
{
    return &scan->passes[pass].items[scan->passes[pass].count - 1];
}

static int by_page(const void *a, const void *b)
{
    uint64_t x = ((const struct qs_step *)a)->page, y = ((const struct qs_step *)b)->page;
    return x < y ? -1 : x > y;
}

/*
 * A copy must be made before the page it is made of changes; where pages exchange their contents
 * one of them falls back on its own former content.
 */
static int order_copies(struct qs_scan *scan)
{
    struct qs_steps *copies = &scan->passes[QS_PASS_COPIES];
    size_t n = copies->count, ready = 0;
    if (n < 2)
        return 0;
    qsort(copies->items, n, sizeof *copies->items, by_page);
    struct qs_step *ordered = qr_malloc(n * sizeof *ordered);
    uint32_t *users = qr_calloc(n, sizeof *users); /* copies still to be made of item i */
    uint8_t *taken = qr_calloc(n, 1);
    struct qs_step **base = qr_calloc(n, sizeof *base);
    if (!ordered || !users || !taken || !base) {
        qr_free(ordered);
        qr_free(users);
        qr_free(taken);
        qr_free(base);
        return qs_scan_no_memory();
    }
    for (size_t i = 0; i < n; i++) {
        struct qs_step key = {.page = copies->items[i].base};
        base[i] = bsearch(&key, copies->items, n, sizeof key, by_page);
        if (base[i])
            users[base[i] - copies->items]++;
    }
    while (ready < n) {
        size_t before = ready, first = n;
        for (size_t i = 0; i < n; i++) {
            /* Follow the chain as far as it is free: a rotation of a thousand logs is one round. */
            for (size_t at = i; !taken[at] && users[at] == 0;) {
                ordered[ready++] = copies->items[at];
                taken[at] = 1;
                if (!base[at])
                    break;
                users[at = (size_t)(base[at] - copies->items)]--;
            }
            if (!taken[i] && first == n)
                first = i;
        }
        if (ready == before) { /* a ring: cut it */
            users[base[first] - copies->items]--;
            base[first] = NULL;
            copies->items[first].base = 0;
        }
    }
    memcpy(copies->items, ordered, n * sizeof *ordered);
    qr_free(ordered);
    qr_free(users);
    qr_free(taken);
    qr_free(base);
    return 0;
}

int qs_scan_order(struct qs_scan *scan)
{
    struct qs_steps *content = &scan->passes[QS_PASS_CONTENT];
    if (content->count > 1)
        qsort(content->items, content->count, sizeof *content->items, by_page);
    return order_copies(scan);
}

void qs_scan_finish(struct qs_scan *scan)
{
    for (int pass = 0; pass < QS_PASS_COUNT; pass++) {
        for (size_t i = 0; i < scan->passes[pass].count; i++)
            qr_free(scan->passes[pass].items[i].name);
        qr_free(scan->passes[pass].items);
    }
    for (size_t i = 1; i < scan->place_count; i++)
        qr_free(scan->places[i].path);
    for (size_t i = 0; i < scan->claimed_count; i++)
        qr_free(scan->claimed_paths[i]);
    qr_free(scan->places);
    qr_free(scan->vanished);
    qr_free(scan->claimed);
    qr_free(scan->claimed_paths);
    qr_free(scan->touched);
    qs_string_set_finish(&scan->new_names);
    qr_free(scan->path);
}
