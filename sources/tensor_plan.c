/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a save of tensors will do: which page of the newest epoch each file and tensor is.
 *
 * A name that was there keeps its page. What has a new name is taken for one whose name is gone,
 * if it is of the same kind: files of the same format, tensors of the same dtype and shape, each in
 * their order. A mistake there costs bytes, not correctness: the difference is of what was read.
 * What is left is created and freed.
 */
#include "sources/tensor_plan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "sources/path.h"
#include "sources/tree_internal.h"

enum { INDEX_MAX = 256 << 20 }; /* bytes of an index of shards */

static int no_memory(void) { return qr_fail(QALLOW_E_NO_MEMORY, "no memory for tensors"); }

int qs_read_exactly(int fd, const char *path, void *to, size_t length, uint64_t offset)
{
    for (size_t done = 0; done < length;) {
        ssize_t n = pread(fd, (uint8_t *)to + done, length - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return qr_fail_errno(errno, "reading %s", qr_quotez(path));
        if (n == 0)
            return qr_fail(QALLOW_E_BUSY, "%s became shorter while it was read; try again",
                           qr_quotez(path));
        done += (size_t)n;
    }
    return 0;
}

/* --- pages of files --- */

static const char *const format_names[] = {[QS_SAFETENSORS] = "safetensors",
                                           [QS_SAFETENSORS_INDEX] = "safetensors index",
                                           [QS_NPY] = "npy"};

const char *qs_tensor_format_name(enum qs_tensor_format format) { return format_names[format]; }

enum qs_tensor_format qs_tensor_format_of_page(const struct qr_page *page)
{
    for (int f = QS_SAFETENSORS; f <= QS_NPY; f++)
        if (page->parent == 0 && page->extra_length == strlen(format_names[f]) &&
            memcmp(page->extra, format_names[f], page->extra_length) == 0 &&
            page->kind == (f == QS_SAFETENSORS_INDEX ? QR_KIND_RAW : QR_KIND_DIRECTORY))
            return (enum qs_tensor_format)f;
    return QS_NO_TENSORS;
}

int qs_has_tensors(const struct qr_state *state)
{
    for (const struct qr_page *root = qr_state_first_child(state, 0); root;
         root = qr_state_next_sibling(state, root))
        if (qs_tensor_format_of_page(root))
            return 1;
    return 0;
}

/* --- opening --- */

/* Waits until a change of the file could not have the time that it has now: clocks of file systems
 * tick slowly, and qs_tensor_plan_check would not see it. */
static void wait_for_tick(const struct qs_tensor_file *file)
{
    struct timespec rest = {.tv_nsec = QS_RACY_NS};
    if (qs_stat_is_racy(&file->before))
        while (nanosleep(&rest, &rest) < 0 && errno == EINTR)
            ;
}

static int check_file(struct qs_tensor_file *file)
{
    if (file->fd < 0 || fstat(file->fd, &file->before) < 0)
        return qr_fail_errno(errno, "%s", qr_quotez(file->path));
    wait_for_tick(file);
    if (!S_ISREG(file->before.st_mode))
        return qr_fail(QALLOW_E_ARGUMENT, "%s is no regular file", qr_quotez(file->path));
    uint64_t size = (uint64_t)file->before.st_size;
    if (file->format != QS_SAFETENSORS_INDEX)
        return qs_tensors_read(file->fd, file->path, size, file->format, &file->tensors);
    return size <= INDEX_MAX ? 0
                             : qr_fail(QALLOW_E_SERIALIZATION, "%s: an index of %llu bytes",
                                       qr_quotez(file->path), (unsigned long long)size);
}

static int open_file(struct qs_tensor_plan *plan, const char *directory, const char *name,
                     enum qs_tensor_format format)
{
    struct qs_tensor_file file = {.path = qs_path_join(directory, name), .format = format};
    if (!file.path || QR_GROW(plan->files, plan->file_count, plan->file_capacity) < 0) {
        qr_free(file.path);
        return no_memory();
    }
    const char *slash = strrchr(file.path, '/');
    file.name = slash ? slash + 1 : file.path;
    file.fd = open(file.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    plan->files[plan->file_count] = file;
    return check_file(&plan->files[plan->file_count++]);
}

/* The shards that an index names, beside it. */
static int open_shards(struct qs_tensor_plan *plan, const char *path)
{
    const struct qs_tensor_file *index = &plan->files[0];
    size_t length = (size_t)index->before.st_size;
    struct qs_shards shards = {0};
    char *text = qr_malloc(length + 1), *directory = qs_path_join("", path);
    int rc = text && directory ? qs_read_exactly(index->fd, path, text, length, 0) : no_memory();
    if (rc == 0)
        rc = qs_shards_parse(text, length, path, &shards);
    if (rc == 0)
        directory[index->name - index->path] = 0;
    for (size_t n = directory ? strlen(directory) : 0; n > 1 && directory[n - 1] == '/'; n--)
        directory[n - 1] = 0;
    for (size_t i = 0; i < shards.count && rc == 0; i++)
        rc = open_file(plan, directory, shards.names[i], QS_SAFETENSORS);
    qs_shards_finish(&shards);
    qr_free(text);
    qr_free(directory);
    return rc;
}

int qs_tensor_plan_open(struct qs_tensor_plan *plan, const char *path, enum qs_tensor_format format)
{
    int rc = open_file(plan, "", path, format);
    return rc == 0 && format == QS_SAFETENSORS_INDEX ? open_shards(plan, path) : rc;
}

int qs_tensor_plan_check(const struct qs_tensor_plan *plan)
{
    for (size_t i = 0; i < plan->file_count; i++) {
        const struct qs_tensor_file *file = &plan->files[i];
        struct stat now;
        if (fstat(file->fd, &now) < 0)
            return qr_fail_errno(errno, "%s", qr_quotez(file->path));
        if (now.st_size != file->before.st_size ||
            qs_ns(now.st_mtim) != qs_ns(file->before.st_mtim) ||
            qs_ns(now.st_ctim) != qs_ns(file->before.st_ctim))
            return qr_fail(QALLOW_E_BUSY, "%s changed while it was read; try again",
                           qr_quotez(file->path));
    }
    return 0;
}

void qs_tensor_plan_finish(struct qs_tensor_plan *plan)
{
    for (size_t i = 0; i < plan->file_count; i++) {
        qs_tensors_finish(&plan->files[i].tensors);
        qr_free(plan->files[i].path);
        if (plan->files[i].fd >= 0)
            close(plan->files[i].fd);
    }
    for (size_t i = 0; i < plan->page_count; i++) {
        qr_content_finish(&plan->pages[i].old);
        qr_edits_finish(&plan->pages[i].edits);
    }
    qr_free(plan->files);
    qr_free(plan->pages);
}

/* --- pages --- */

static const struct qr_page *find_page(const struct qs_tensor_plan *plan, uint64_t id)
{
    return id ? qr_state_find(qr_store_state(plan->store), id) : NULL;
}

/* Enters a page whose bytes are to be read; `page` NULL: it is made under `id`. */
static int add_page(struct qs_tensor_plan *plan, const struct qs_tensor_file *file,
                    const struct qr_page *page, uint64_t id, struct qs_tensor_page what)
{
    if (QR_GROW(plan->pages, plan->page_count, plan->page_capacity) < 0)
        return no_memory();
    what.file = file;
    what.id = page ? page->id : id;
    what.is_new = !page;
    int rc = 0;
    if (page) {
        what.sum = page->content_sum;
        rc = qr_content_init(&what.old, page);
    }
    plan->pages[plan->page_count] = what;
    if (what.old.pieces == &what.old.inline_piece || rc || !page) /* moves with the array */
        plan->pages[plan->page_count].old.pieces = NULL;
    plan->page_count++;
    return rc;
}

/* Gives a page its name and extra bytes, if they are others; creates it if there is none. */
static int put_page(struct qs_tensor_plan *plan, const struct qr_page *page, uint64_t parent,
                    const char *name, enum qr_kind kind, const void *extra, size_t extra_length,
                    uint64_t *id)
{
    struct qr_attributes attributes = {.extra = extra, .extra_length = (uint16_t)extra_length};
    size_t length = strlen(name);
    if (!page) {
        *id = qr_txn_new_id(plan->txn);
        return qr_batch_page_create(plan->batch, *id, parent, name, length, kind, &attributes);
    }
    *id = page->id;
    int rc = 0;
    if (page->name_length != length || memcmp(page->name, name, length) != 0)
        rc = qr_batch_page_rename(plan->batch, *id, page->parent, name, length);
    if (rc == 0 && (page->extra_length != extra_length ||
                    (extra_length && memcmp(page->extra, extra, extra_length) != 0)))
        rc = qr_batch_page_attributes(plan->batch, *id, &attributes);
    return rc;
}

/* --- whose names are new, and whose are gone --- */

struct unmatched {
    const void *extra;                 /* what both must have in common */
    size_t extra_length, order, index; /* index: of a new tensor */
    uint64_t page;                     /* that is gone; then that a new tensor gets */
};
struct unmatched_list {
    struct unmatched *items;
    size_t count, capacity;
};

static int add_unmatched(struct unmatched_list *list, struct unmatched item)
{
    if (QR_GROW(list->items, list->count, list->capacity) < 0)
        return no_memory();
    item.order = list->count;
    list->items[list->count++] = item;
    return 0;
}

static int compare_extra(const struct unmatched *x, const struct unmatched *y)
{
    if (x->extra_length != y->extra_length)
        return x->extra_length < y->extra_length ? -1 : 1;
    return x->extra_length ? memcmp(x->extra, y->extra, x->extra_length) : 0;
}

static int by_extra(const void *a, const void *b)
{
    const struct unmatched *x = a, *y = b;
    int order = compare_extra(x, y);
    return order ? order : (x->order > y->order) - (x->order < y->order);
}

static int by_order(const void *a, const void *b)
{
    const struct unmatched *x = a, *y = b;
    return (x->order > y->order) - (x->order < y->order);
}

/* Pairs new ones with gone ones; those of `gone` that are left keep their page, others get 0. */
static void pair(struct unmatched_list *fresh, struct unmatched_list *gone)
{
    if (!fresh->count || !gone->count)
        return;
    qsort(fresh->items, fresh->count, sizeof *fresh->items, by_extra);
    qsort(gone->items, gone->count, sizeof *gone->items, by_extra);
    for (size_t f = 0, g = 0; f < fresh->count && g < gone->count;) {
        int order = compare_extra(&fresh->items[f], &gone->items[g]);
        if (order == 0) {
            fresh->items[f].page = gone->items[g].page;
            gone->items[g].page = 0;
        }
        f += order <= 0;
        g += order >= 0;
    }
    qsort(fresh->items, fresh->count, sizeof *fresh->items, by_order);
}

/* The pages below `parent` of a kind that nobody has marked. */
static int collect_gone(const struct qs_tensor_plan *plan, uint64_t parent,
                        struct unmatched_list *gone)
{
    const struct qr_state *state = qr_store_state(plan->store);
    int rc = 0;
    for (const struct qr_page *page = qr_state_first_child(state, parent); page && rc == 0;
         page = qr_state_next_sibling(state, page))
        if (!page->mark)
            rc = add_unmatched(gone, (struct unmatched){.extra = page->extra,
                                                        .extra_length = page->extra_length,
                                                        .page = page->id});
    for (size_t i = 0; i < gone->count; i++) /* children come in no particular order */
        gone->items[i].order = (size_t)gone->items[i].page;
    return rc;
}

static void unmark(const struct qs_tensor_plan *plan, uint64_t parent)
{
    const struct qr_state *state = qr_store_state(plan->store);
    for (struct qr_page *page = qr_state_first_child(state, parent); page;
         page = qr_state_next_sibling(state, page))
        page->mark = 0;
}

/* Frees a page and what is below it (one level). */
static int free_page(struct qs_tensor_plan *plan, uint64_t id)
{
    const struct qr_state *state = qr_store_state(plan->store);
    int rc = 0;
    for (const struct qr_page *page = qr_state_first_child(state, id); page && rc == 0;
         page = qr_state_next_sibling(state, page)) {
        plan->result->removed += page->kind == QR_KIND_TENSOR;
        rc = qr_batch_page_free(plan->batch, page->id);
    }
    plan->result->removed += find_page(plan, id)->kind == QR_KIND_TENSOR;
    return rc ? rc : qr_batch_page_free(plan->batch, id);
}

static int free_gone(struct qs_tensor_plan *plan, const struct unmatched_list *gone)
{
    int rc = 0;
    for (size_t i = 0; i < gone->count && rc == 0; i++)
        if (gone->items[i].page)
            rc = free_page(plan, gone->items[i].page);
    return rc;
}

/* --- the tensors of a file --- */

static int plan_tensor(struct qs_tensor_plan *plan, const struct qs_tensor_file *file,
                       const struct qs_tensor *tensor, uint64_t page_id)
{
    const struct qr_page *page = find_page(plan, page_id);
    uint64_t id;
    int rc = put_page(plan, page, file->page, tensor->name, QR_KIND_TENSOR, tensor->extra,
                      tensor->extra_length, &id);
    return rc ? rc
              : add_page(plan, file, page, id,
                         (struct qs_tensor_page){.from = tensor->begin,
                                                 .size = tensor->end - tensor->begin,
                                                 .width = tensor->width,
                                                 .is_tensor = 1});
}

static int plan_header(struct qs_tensor_plan *plan, const struct qs_tensor_file *file,
                       struct qr_page *page)
{
    uint64_t id;
    int rc = put_page(plan, page, file->page, QS_HEADER_NAME, QR_KIND_RAW, NULL, 0, &id);
    if (page)
        page->mark = 1;
    return rc ? rc
              : add_page(plan, file, page, id,
                         (struct qs_tensor_page){.size = file->tensors.header_length, .width = 1});
}

/* Which page each tensor is: pages[i], 0 for a new one. `gone` gets those that none is. */
static int match_tensors(struct qs_tensor_plan *plan, const struct qs_tensor_file *file,
                         uint64_t *pages, struct unmatched_list *gone)
{
    const struct qr_state *state = qr_store_state(plan->store);
    struct unmatched_list fresh = {0};
    int rc = 0;
    for (size_t i = 0; i < file->tensors.count && rc == 0; i++) {
        const struct qs_tensor *t = &file->tensors.items[i];
        struct qr_page *page = qr_state_child(state, file->page, t->name, strlen(t->name));
        if (page) {
            page->mark = 1;
            pages[i] = page->id;
        } else {
            rc = add_unmatched(
                &fresh,
                (struct unmatched){.extra = t->extra, .extra_length = t->extra_length, .index = i});
        }
    }
    if (rc == 0)
        rc = collect_gone(plan, file->page, gone);
    if (rc == 0)
        pair(&fresh, gone);
    for (size_t i = 0; i < fresh.count && rc == 0; i++) {
        pages[fresh.items[i].index] = fresh.items[i].page;
        plan->result->renamed += fresh.items[i].page != 0;
        plan->result->created += fresh.items[i].page == 0;
    }
    qr_free(fresh.items);
    return rc;
}

static int plan_tensors(struct qs_tensor_plan *plan, const struct qs_tensor_file *file)
{
    const struct qr_state *state = qr_store_state(plan->store);
    size_t count = file->tensors.count;
    struct unmatched_list gone = {0};
    uint64_t *pages = qr_calloc(count + 1, sizeof *pages);
    int rc =
        pages
            ? plan_header(plan, file,
                          qr_state_child(state, file->page, QS_HEADER_NAME, strlen(QS_HEADER_NAME)))
            : no_memory();
    if (rc == 0)
        rc = match_tensors(plan, file, pages, &gone);
    if (rc == 0)
        rc = free_gone(plan, &gone);
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = plan_tensor(plan, file, &file->tensors.items[i], pages[i]);
    unmark(plan, file->page);
    qr_free(gone.items);
    qr_free(pages);
    plan->result->tensors += count;
    return rc;
}

/* --- the files --- */

static int plan_file(struct qs_tensor_plan *plan, struct qs_tensor_file *file, uint64_t page_id)
{
    const char *extra = qs_tensor_format_name(file->format);
    const struct qr_page *page = find_page(plan, page_id);
    int is_index = file->format == QS_SAFETENSORS_INDEX;
    int rc = put_page(plan, page, 0, file->name, is_index ? QR_KIND_RAW : QR_KIND_DIRECTORY, extra,
                      strlen(extra), &file->page);
    plan->result->files++;
    if (rc || !is_index)
        return rc ? rc : plan_tensors(plan, file);
    return add_page(plan, file, page, file->page,
                    (struct qs_tensor_page){.size = (uint64_t)file->before.st_size, .width = 1});
}

/* Nothing but files of tensors has been recorded. */
static int check_state(const struct qs_tensor_plan *plan)
{
    const struct qr_state *state = qr_store_state(plan->store);
    for (const struct qr_page *root = qr_state_first_child(state, 0); root;
         root = qr_state_next_sibling(state, root))
        if (!qs_tensor_format_of_page(root))
            return qr_fail(QALLOW_E_ARGUMENT,
                           "%s records something else than tensors; give them a log of their own",
                           qr_quotez(qr_store_path(plan->store)));
    return 0;
}

static int match_files(struct qs_tensor_plan *plan, uint64_t *pages, struct unmatched_list *gone)
{
    const struct qr_state *state = qr_store_state(plan->store);
    struct unmatched_list fresh = {0};
    int rc = 0;
    for (size_t i = 0; i < plan->file_count && rc == 0; i++) {
        const struct qs_tensor_file *file = &plan->files[i];
        struct qr_page *page = qr_state_child(state, 0, file->name, strlen(file->name));
        const char *extra = qs_tensor_format_name(file->format);
        if (page && qs_tensor_format_of_page(page) == file->format) {
            page->mark = 1;
            pages[i] = page->id;
        } else {
            rc = add_unmatched(
                &fresh,
                (struct unmatched){.extra = extra, .extra_length = strlen(extra), .index = i});
        }
    }
    if (rc == 0)
        rc = collect_gone(plan, 0, gone);
    if (rc == 0)
        pair(&fresh, gone);
    for (size_t i = 0; i < fresh.count && rc == 0; i++)
        pages[fresh.items[i].index] = fresh.items[i].page;
    unmark(plan, 0);
    qr_free(fresh.items);
    return rc;
}

int qs_tensor_plan_pages(struct qs_tensor_plan *plan)
{
    struct unmatched_list gone = {0};
    uint64_t *pages = qr_calloc(plan->file_count + 1, sizeof *pages);
    int rc = pages ? check_state(plan) : no_memory();
    if (rc == 0)
        rc = match_files(plan, pages, &gone);
    if (rc == 0)
        rc = free_gone(plan, &gone);
    for (size_t i = 0; i < plan->file_count && rc == 0; i++)
        rc = plan_file(plan, &plan->files[i], pages[i]);
    qr_free(gone.items);
    qr_free(pages);
    for (size_t i = 0; i < plan->page_count; i++) { /* the array moves no more */
        struct qs_tensor_page *page = &plan->pages[i];
        if (page->old.piece_count <= 1)
            page->old.pieces = &page->old.inline_piece;
    }
    return rc;
}
