/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page table of one epoch.
 *
 * Pages stand in chunks of fixed address, numbered by slots that ascend with the page id (ids are
 * created in ascending order), so walking slots is walking ids. Two open-addressing tables of slot
 * numbers find a page by id and by (parent, name). Siblings form a doubly linked list through
 * slots. A freed page leaves a dead slot; qr_state_compact() renumbers when there are many.
 *
 * The digest is kept with every change: each mutator takes the page's term out, changes the page
 * and puts the new term in.
 */
#include "runtime/bytes.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "runtime/state_internal.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/* ---------------------------------------------------------------- hash tables of slots */

static uint32_t id_hash(uint64_t id) { return (uint32_t)(id * UINT64_C(0x9E3779B97F4A7C15) >> 17); }

static uint32_t name_hash(uint64_t parent, const void *name, size_t length)
{
    return (uint32_t)XXH3_64bits_withSeed(name, length, parent * UINT64_C(0x9E3779B97F4A7C15));
}

static uint32_t page_hash(const struct qr_page *page, int by_name)
{
    return by_name ? name_hash(page->parent, page->name, page->name_length) : id_hash(page->id);
}

static void put_entry(struct qr_slot_table *table, struct qr_slot_entry entry)
{
    uint32_t i = entry.hash & table->mask;
    while (table->entries[i].slot)
        i = (i + 1) & table->mask;
    table->entries[i] = entry;
    table->used++;
}

static void table_put(const struct qr_state *state, struct qr_slot_table *table, uint32_t slot,
                      int by_name)
{
    put_entry(table, (struct qr_slot_entry){slot, page_hash(qr_slot(state, slot), by_name)});
}

/* Makes room for one more entry at a load of at most 3/4. */
static int table_reserve(struct qr_slot_table *table)
{
    uint32_t capacity = table->entries ? table->mask + 1 : 0;
    if ((uint64_t)(table->used + 1) * 4 <= (uint64_t)capacity * 3)
        return 0;
    if (capacity > UINT32_MAX / 2)
        return qr_fail(QALLOW_E_LIMIT, "more than %u pages", capacity);
    struct qr_slot_table bigger = {NULL, capacity ? capacity * 2 - 1 : 63, 0};
    bigger.entries = qr_calloc((size_t)bigger.mask + 1, sizeof *bigger.entries);
    if (!bigger.entries)
        return qr_fail(QALLOW_E_NO_MEMORY, "page table of %u entries", bigger.mask + 1);
    for (uint32_t i = 0; i < capacity; i++)
        if (table->entries[i].slot)
            put_entry(&bigger, table->entries[i]);
    qr_free(table->entries);
    *table = bigger;
    return 0;
}

/* Removes a slot and moves later entries of its probe chain up (no tombstones). */
static void table_remove(const struct qr_state *state, struct qr_slot_table *table, uint32_t slot,
                         int by_name)
{
    struct qr_slot_entry *entries = table->entries;
    uint32_t i = page_hash(qr_slot(state, slot), by_name) & table->mask;
    while (entries[i].slot != slot) {
        qr_assert(entries[i].slot);
        i = (i + 1) & table->mask;
    }
    for (uint32_t j = (i + 1) & table->mask; entries[j].slot; j = (j + 1) & table->mask) {
        uint32_t home = entries[j].hash & table->mask;
        if (((j - home) & table->mask) >= ((j - i) & table->mask)) {
            entries[i] = entries[j];
            i = j;
        }
    }
    entries[i] = (struct qr_slot_entry){0, 0};
    table->used--;
}

/* ---------------------------------------------------------------- creating and looking up */

int qr_state_create(struct qr_state **out)
{
    struct qr_state *state = qr_calloc(1, sizeof *state);
    if (!state)
        return qr_fail(QALLOW_E_NO_MEMORY, "page table");
    state->slot_count = 1;
    state->summed_to = UINT32_MAX;
    state->next_id = 1;
    *out = state;
    return 0;
}

/* Pages begin on a line of the cache. What came from the allocator stands before the first. */
static struct qr_page *allocate_chunk(void)
{
    enum { LINE = 64 };
    uint8_t *raw = qr_calloc(1, LINE + QR_CHUNK * sizeof(struct qr_page));
    if (!raw)
        return NULL;
    uint8_t *pages = raw + LINE - (uintptr_t)raw % LINE;
    qr_assert(pages - raw >= (ptrdiff_t)sizeof raw);
    memcpy(pages - sizeof raw, &raw, sizeof raw);
    return (struct qr_page *)pages;
}

static void free_chunk(struct qr_page *pages)
{
    void *raw;
    memcpy(&raw, (uint8_t *)pages - sizeof raw, sizeof raw);
    qr_free(raw);
}

static void page_release(struct qr_page *page)
{
    qr_free(page->name);
    qr_free(page->extra);
    if (page->pieces != &page->inline_piece)
        qr_free(page->pieces);
    page->name = NULL;
    page->extra = NULL;
    page->pieces = NULL;
    page->piece_count = page->piece_capacity = page->recent_count = 0;
}

void qr_state_destroy(struct qr_state *state)
{
    if (!state)
        return;
    for (uint32_t slot = 1; slot < state->slot_count; slot++)
        page_release(qr_slot(state, slot));
    qr_state_let_all_go(state);
    for (uint32_t i = 0; i < state->chunk_count; i++)
        free_chunk(state->chunks[i]);
    qr_free(state->chunks);
    qr_free(state->by_id.entries);
    qr_free(state->by_name.entries);
    qr_free(state);
}

uint64_t qr_state_epoch(const struct qr_state *state) { return state->epoch; }
struct qb_u128 qr_state_digest(const struct qr_state *state) { return state->digest; }
int64_t qr_state_time_ns(const struct qr_state *state) { return state->time_ns; }
size_t qr_state_page_count(const struct qr_state *state) { return (size_t)state->page_count; }
uint64_t qr_state_bytes(const struct qr_state *state) { return state->bytes; }

/* Where a page stands if all since the last compaction were created one after the other: most. */
static struct qr_page *usual_place(const struct qr_state *state, uint64_t id)
{
    uint64_t slot = id - state->usual_distance;
    return slot > 0 && slot < state->slot_count ? qr_slot(state, (uint32_t)slot) : NULL;
}

struct qr_page *qr_state_find(const struct qr_state *state, uint64_t id)
{
    const struct qr_slot_table *table = &state->by_id;
    struct qr_page *usual = usual_place(state, id);
    if (usual && usual->id == id)
        return usual->pieces ? usual : NULL; /* NULL: freed */
    if (!table->entries)
        return NULL;
    uint32_t hash = id_hash(id);
    for (uint32_t i = hash & table->mask; table->entries[i].slot; i = (i + 1) & table->mask) {
        struct qr_page *page = qr_slot(state, table->entries[i].slot);
        if (table->entries[i].hash == hash && page->id == id)
            return page;
    }
    return NULL;
}

/* Are all pages in their usual places? Slots ascend by id, so the first one tells. */
static int all_usual(const struct qr_state *state)
{
    return state->slot_count > 1 && qr_slot(state, 1)->id == state->usual_distance + 1;
}

void qr_state_fetch(const struct qr_state *state, uint64_t id, enum qr_fetch step)
{
    enum { LINE = 64, FETCH_MAX = 64, PER_LINE = LINE / sizeof(struct qr_piece) };
    const struct qr_slot_table *table = &state->by_id;
    if (!table->entries)
        return;
    const struct qr_slot_entry *entry = &table->entries[id_hash(id) & table->mask];
    const struct qr_page *usual = usual_place(state, id);
    if (step == QR_FETCH_SLOT) {
        __builtin_prefetch(usual);
        if (!all_usual(state))
            __builtin_prefetch(entry);
    } else if (step == QR_FETCH_PAGE) {
        if ((!usual || usual->id != id) && entry->slot) /* nearly always the first place is right */
            __builtin_prefetch(qr_slot(state, entry->slot));
    } else {
        const struct qr_page *page = qr_state_find(state, id);
        uint32_t end = page ? (uint32_t)(page->piece_count + page->recent_count) : 0;
        uint32_t from = page && page->recent_count + 1 < QR_RECENT_MAX ? end : 0;
        for (uint32_t i = from; page && i <= end && i < from + FETCH_MAX; i += PER_LINE)
            __builtin_prefetch(&page->pieces[i]);
    }
}

struct qr_page *qr_state_child(const struct qr_state *state, uint64_t parent, const void *name,
                               size_t length)
{
    const struct qr_slot_table *table = &state->by_name;
    if (!table->entries)
        return NULL;
    uint32_t hash = name_hash(parent, name, length);
    for (uint32_t i = hash & table->mask; table->entries[i].slot; i = (i + 1) & table->mask) {
        struct qr_page *page = qr_slot(state, table->entries[i].slot);
        if (table->entries[i].hash == hash && page->parent == parent &&
            page->name_length == length && !memcmp(page->name, name, length))
            return page;
    }
    return NULL;
}

struct qr_page *qr_state_first_child(const struct qr_state *state, uint64_t parent)
{
    uint32_t slot = state->first_root;
    if (parent) {
        const struct qr_page *page = qr_state_find(state, parent);
        slot = page ? page->first_child : 0;
    }
    return slot ? qr_slot(state, slot) : NULL;
}

struct qr_page *qr_state_next_sibling(const struct qr_state *state, const struct qr_page *page)
{
    return page->next_sibling ? qr_slot(state, page->next_sibling) : NULL;
}

struct qr_page *qr_state_next_page(const struct qr_state *state, uint64_t after)
{
    uint32_t low = 1, high = state->slot_count; /* first slot whose id is greater than `after` */
    const struct qr_page *here = after ? qr_state_find(state, after) : NULL;
    if (here) {
        low = high = here->slot + 1;
    }
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (qr_slot(state, middle)->id <= after)
            low = middle + 1;
        else
            high = middle;
    }
    while (low < state->slot_count && !qr_slot(state, low)->kind)
        low++;
    return low < state->slot_count ? qr_slot(state, low) : NULL;
}

struct qr_page *qr_state_lookup(const struct qr_state *state, uint64_t root, const char *path)
{
    struct qr_page *page = qr_state_find(state, root);
    while (page && *path) {
        size_t length = strcspn(path, "/");
        if (length && !(length == 1 && *path == '.'))
            page = qr_state_child(state, page->id, path, length);
        path += length;
        path += *path == '/';
    }
    return page;
}

int64_t qr_page_path(const struct qr_state *state, const struct qr_page *page, char *buffer,
                     size_t size)
{
    size_t length = 0;
    const struct qr_page *p;
    for (p = page; p && p->parent; p = qr_state_find(state, p->parent))
        length += p->name_length + (length ? 1u : 0u);
    if (!page->parent)
        length = page->name_length;
    if (!p || length + 1 > size)
        return qr_fail(QALLOW_E_LIMIT, "path of page %llu is %zu bytes long",
                       (unsigned long long)page->id, length);
    buffer[length] = 0;
    if (!page->parent)
        memcpy(buffer, page->name, length);
    size_t at = length;
    for (p = page; p->parent; p = qr_state_find(state, p->parent)) {
        if (at != length)
            buffer[--at] = '/';
        at -= p->name_length;
        memcpy(buffer + at, p->name, p->name_length);
    }
    return (int64_t)length;
}

/* ---------------------------------------------------------------- digest */

uint64_t qr_page_seed(uint64_t id)
{
    uint8_t bytes[8];
    qr_store64(bytes, id);
    return XXH3_64bits(bytes, sizeof bytes);
}

struct qb_u128 qr_page_term(const struct qr_page *page)
{
    uint8_t buffer[48 + QR_NAME_MAX + QR_EXTRA_MAX];
    qr_store64(buffer, page->id);
    qr_store64(buffer + 8, page->parent);
    qr_store64(buffer + 16, page->size);
    qr_store64(buffer + 24, (uint64_t)page->mtime_ns);
    qr_store32(buffer + 32, page->mode);
    buffer[36] = (uint8_t)page->name_length;
    buffer[37] = (uint8_t)(page->name_length >> 8);
    buffer[38] = (uint8_t)page->extra_length;
    buffer[39] = (uint8_t)(page->extra_length >> 8);
    buffer[40] = page->kind;
    memcpy(buffer + 41, page->name, page->name_length);
    if (page->extra_length)
        memcpy(buffer + 41 + page->name_length, page->extra, page->extra_length);
    XXH128_hash_t hash = XXH3_128bits_withSeed(buffer, 41u + page->name_length + page->extra_length,
                                               qr_page_seed(page->id));
    return (struct qb_u128){hash.low64, hash.high64};
}

static struct qb_u128 page_digest(const struct qr_page *page)
{
    return qb_u128_add(qr_page_term(page), page->content_sum);
}
/* Has the digest a term of the page? (Where it lacks none, the page's slot is not looked up.) */
static int is_summed(const struct qr_state *state, const struct qr_page *page)
{
    return state->summed_to >= state->slot_count || page->slot < state->summed_to;
}
static void digest_out(struct qr_state *state, const struct qr_page *page)
{
    if (is_summed(state, page))
        state->digest = qb_u128_sub(state->digest, page_digest(page));
}
static void digest_in(struct qr_state *state, const struct qr_page *page)
{
    if (is_summed(state, page))
        state->digest = qb_u128_add(state->digest, page_digest(page));
}

void qr_state_sum_new(struct qr_state *state)
{
    if (state->summed_to == UINT32_MAX)
        return;
    for (uint32_t slot = state->summed_to; slot < state->slot_count; slot++)
        if (qr_slot(state, slot)->kind)
            state->digest = qb_u128_add(state->digest, page_digest(qr_slot(state, slot)));
    state->summed_to = state->slot_count;
}

/* ---------------------------------------------------------------- changing */

static void link_child(struct qr_state *state, struct qr_page *page)
{
    struct qr_page *parent = page->parent ? qr_state_find(state, page->parent) : NULL;
    uint32_t *head = parent ? &parent->first_child : &state->first_root;
    page->previous_sibling = 0;
    page->next_sibling = *head;
    if (*head)
        qr_slot(state, *head)->previous_sibling = page->slot;
    *head = page->slot;
}

static void unlink_child(struct qr_state *state, struct qr_page *page)
{
    struct qr_page *parent = page->parent ? qr_state_find(state, page->parent) : NULL;
    uint32_t *head = parent ? &parent->first_child : &state->first_root;
    if (page->previous_sibling)
        qr_slot(state, page->previous_sibling)->next_sibling = page->next_sibling;
    else
        *head = page->next_sibling;
    if (page->next_sibling)
        qr_slot(state, page->next_sibling)->previous_sibling = page->previous_sibling;
}

/* The rules of a name: where it may stand and what it may contain. */
static int check_name(const struct qr_state *state, uint64_t id, uint64_t parent, const void *name,
                      size_t length)
{
    if (length == 0 || length > QR_NAME_MAX || memchr(name, 0, length))
        return qr_fail(QALLOW_E_SERIALIZATION, "page %llu: a name of %zu bytes%s",
                       (unsigned long long)id, length,
                       length && length <= QR_NAME_MAX ? " with a NUL in it" : "");
    if (parent) {
        const struct qr_page *page = qr_state_find(state, parent);
        if (!page || page->kind != QR_KIND_DIRECTORY)
            return qr_fail(page ? QALLOW_E_SERIALIZATION : QALLOW_E_PAGE_NOT_FOUND,
                           "page %llu: its parent, page %llu, is %s", (unsigned long long)id,
                           (unsigned long long)parent, page ? "not a directory" : "not there");
    }
    if (qr_state_child(state, parent, name, length))
        return qr_fail(QALLOW_E_PAGE_EXISTS, "page %llu: the name %s is taken",
                       (unsigned long long)id, qr_quote(name, length));
    return 0;
}

static int reserve_slot(struct qr_state *state)
{
    uint32_t chunk = state->slot_count >> QR_CHUNK_SHIFT;
    if (chunk < state->chunk_count)
        return 0;
    if (state->chunk_count == state->chunk_capacity) {
        uint32_t capacity = state->chunk_capacity ? state->chunk_capacity * 2 : 16;
        void *grown = qr_realloc(state->chunks, capacity * sizeof *state->chunks);
        if (!grown)
            return qr_fail(QALLOW_E_NO_MEMORY, "page table");
        state->chunks = grown;
        state->chunk_capacity = capacity;
    }
    struct qr_page *pages = allocate_chunk();
    if (!pages)
        return qr_fail(QALLOW_E_NO_MEMORY, "page table");
    state->chunks[state->chunk_count++] = pages;
    return 0;
}

static char *duplicate_name(const void *name, size_t length)
{
    char *copy = qr_malloc(length + 1);
    if (copy) {
        memcpy(copy, name, length);
        copy[length] = 0;
    } else {
        qr_fail(QALLOW_E_NO_MEMORY, "name of %zu bytes", length);
    }
    return copy;
}

/* Adds a page without content; its parent and the uniqueness of its name are the caller's. */
static int insert_page(struct qr_state *state, uint64_t id, uint64_t parent, const void *name,
                       size_t name_length, enum qr_kind kind, struct qr_page **out)
{
    int rc;
    if (id < state->next_id || id == UINT64_MAX)
        return qr_fail(QALLOW_E_SERIALIZATION, "page %llu: its id is not greater than all before",
                       (unsigned long long)id);
    if (kind < QR_KIND_RAW || kind > QR_KIND_TENSOR)
        return qr_fail(QALLOW_E_SERIALIZATION, "page %llu: unknown kind %d", (unsigned long long)id,
                       (int)kind);
    if (name_length == 0 || name_length > QR_NAME_MAX || memchr(name, 0, name_length))
        return qr_fail(QALLOW_E_SERIALIZATION,
                       "page %llu: a name that is empty, has more than %d "
                       "bytes or a NUL",
                       (unsigned long long)id, QR_NAME_MAX);
    if ((rc = reserve_slot(state)) || (rc = table_reserve(&state->by_id)) ||
        (rc = table_reserve(&state->by_name)))
        return rc;
    char *copy = duplicate_name(name, name_length);
    if (!copy)
        return QALLOW_E_NO_MEMORY;
    struct qr_page *page = qr_slot(state, state->slot_count);
    *page = (struct qr_page){.id = id,
                             .parent = parent,
                             .name = copy,
                             .kind = (unsigned)kind & 7,
                             .name_length = (uint16_t)name_length,
                             .slot = state->slot_count++};
    page->pieces = &page->inline_piece;
    page->piece_capacity = 1;
    state->next_id = id + 1;
    state->usual_distance = id - page->slot;
    state->page_count++;
    table_put(state, &state->by_id, page->slot, 0);
    table_put(state, &state->by_name, page->slot, 1);
    digest_in(state, page);
    *out = page;
    return 0;
}

int qr_state_create_page(struct qr_state *state, uint64_t id, uint64_t parent, const void *name,
                         size_t name_length, enum qr_kind kind, struct qr_page **page)
{
    int rc = check_name(state, id, parent, name, name_length);
    if (!rc)
        rc = insert_page(state, id, parent, name, name_length, kind, page);
    if (!rc)
        link_child(state, *page);
    return rc;
}

int qr_state_load_page(struct qr_state *state, uint64_t id, uint64_t parent, const void *name,
                       size_t name_length, enum qr_kind kind, struct qr_page **page)
{
    if (name_length && name_length <= QR_NAME_MAX &&
        qr_state_child(state, parent, name, name_length))
        return qr_fail(QALLOW_E_SERIALIZATION, "page table: page %llu: its name is taken",
                       (unsigned long long)id);
    return insert_page(state, id, parent, name, name_length, kind, page);
}

/* Follows the parents up to a root or to a page known to be good; bounded by the number of
 * pages. */
static int check_ancestors(struct qr_state *state, struct qr_page *page)
{
    uint64_t steps = 0;
    struct qr_page *p = page;
    while (p->parent && !p->mark) {
        p = qr_state_find(state, p->parent);
        if (!p || p->kind != QR_KIND_DIRECTORY || ++steps > state->page_count)
            return qr_fail(QALLOW_E_SERIALIZATION,
                           "page table: page %llu hangs on no directory of the tree",
                           (unsigned long long)page->id);
    }
    for (p = page; p && !p->mark; p = p->parent ? qr_state_find(state, p->parent) : NULL)
        p->mark = 1;
    return 0;
}

int qr_state_load_finish(struct qr_state *state)
{
    int rc = 0;
    for (uint32_t slot = 1; slot < state->slot_count && !rc; slot++)
        rc = check_ancestors(state, qr_slot(state, slot));
    for (uint32_t slot = 1; slot < state->slot_count && !rc; slot++) {
        qr_slot(state, slot)->mark = 0;
        link_child(state, qr_slot(state, slot));
    }
    return rc;
}

int qr_state_free_page(struct qr_state *state, struct qr_page *page)
{
    if (page->first_child)
        return qr_fail(QALLOW_E_SERIALIZATION,
                       "page %llu: a directory with entries cannot be freed",
                       (unsigned long long)page->id);
    digest_out(state, page);
    unlink_child(state, page);
    table_remove(state, &state->by_id, page->slot, 0);
    table_remove(state, &state->by_name, page->slot, 1);
    state->page_count--;
    state->bytes -= page->size;
    state->piece_total -= qr_page_pieces_max(page);
    state->dead++;
    qr_page_let_go(state, page);
    page_release(page);
    page->kind = 0;
    return 0;
}

int qr_state_rename_page(struct qr_state *state, struct qr_page *page, uint64_t parent,
                         const void *name, size_t name_length)
{
    int rc = check_name(state, page->id, parent, name, name_length);
    if (rc)
        return rc;
    for (const struct qr_page *p = qr_state_find(state, parent); p;
         p = p->parent ? qr_state_find(state, p->parent) : NULL)
        if (p == page)
            return qr_fail(QALLOW_E_SERIALIZATION, "page %llu: renamed into itself",
                           (unsigned long long)page->id);
    char *copy = duplicate_name(name, name_length);
    if (!copy)
        return QALLOW_E_NO_MEMORY;
    digest_out(state, page);
    unlink_child(state, page);
    table_remove(state, &state->by_name, page->slot, 1);
    qr_free(page->name);
    page->name = copy;
    page->name_length = (uint16_t)name_length;
    page->parent = parent;
    table_put(state, &state->by_name, page->slot, 1);
    link_child(state, page);
    digest_in(state, page);
    return 0;
}

int qr_state_set_attributes(struct qr_state *state, struct qr_page *page, uint32_t mode,
                            int64_t mtime_ns, const void *extra, size_t extra_length)
{
    if (mode > 07777 || extra_length > QR_EXTRA_MAX)
        return qr_fail(QALLOW_E_SERIALIZATION, "page %llu: attributes out of range",
                       (unsigned long long)page->id);
    uint8_t *copy = NULL;
    if (extra_length) {
        copy = qr_malloc(extra_length);
        if (!copy)
            return qr_fail(QALLOW_E_NO_MEMORY, "attributes");
        memcpy(copy, extra, extra_length);
    }
    digest_out(state, page);
    qr_free(page->extra);
    page->extra = copy;
    page->extra_length = (uint16_t)extra_length;
    page->mode = mode;
    page->mtime_ns = mtime_ns;
    digest_in(state, page);
    return 0;
}

void qr_state_set_sum(struct qr_state *state, struct qr_page *page,
                      const struct qb_u128 *content_sum)
{
    if (is_summed(state, page))
        state->digest = qb_u128_add(qb_u128_sub(state->digest, page->content_sum), *content_sum);
    page->content_sum = *content_sum;
}

void qr_state_set_content(struct qr_state *state, struct qr_page *page, struct qr_piece *pieces,
                          uint32_t count, uint32_t capacity, uint64_t size,
                          const struct qb_u128 *content_sum)
{
    if (size != page->size) { /* the page's own term changes, too */
        digest_out(state, page);
        state->bytes += size - page->size;
        page->size = size;
        page->content_sum = *content_sum;
        digest_in(state, page);
    } else {
        qr_state_set_sum(state, page, content_sum);
    }
    state->piece_total += (uint64_t)count - qr_page_pieces_max(page);
    qr_assert(count <= QR_PIECES_MAX);
    if (count == 1 && qr_page_keeps_array(page)) {
        page->pieces[0] = pieces[0];
        qr_free(pieces);
        pieces = page->pieces;
        capacity = page->piece_capacity;
    } else {
        if (page->pieces != &page->inline_piece)
            qr_free(page->pieces);
        if (count <= 1) { /* the usual case of a file: no array of its own */
            if (count)
                page->inline_piece = pieces[0];
            qr_free(pieces);
            pieces = &page->inline_piece;
            capacity = 1;
        }
    }
    page->pieces = pieces;
    /* As one word: a part of it that is read again waits for all writes before it. */
    page->piece_count = count;
    page->piece_capacity = capacity < QR_PIECES_MAX ? capacity : QR_PIECES_MAX;
    page->recent_count = 0;
}

/* ---------------------------------------------------------------- copying */

static int copy_page(struct qr_state *to, const struct qr_page *from)
{
    int rc = reserve_slot(to);
    if (rc)
        return rc;
    struct qr_page *page = qr_slot(to, to->slot_count);
    *page = *from;
    page->slot = to->slot_count++;
    to->usual_distance = page->id - page->slot;
    page->held = NULL;
    page->held_entry = NULL;
    page->first_child = page->next_sibling = page->previous_sibling = 0;
    page->pieces = &page->inline_piece;
    page->piece_capacity = 1;
    page->name = duplicate_name(from->name, from->name_length);
    page->extra = from->extra_length ? qr_malloc(from->extra_length) : NULL;
    uint32_t count = (uint32_t)(from->piece_count + from->recent_count);
    if (count > 1) {
        page->pieces = qr_malloc(count * sizeof *page->pieces);
        page->piece_capacity = count;
    }
    if (!page->name || !page->pieces || (from->extra_length && !page->extra)) {
        if (!page->pieces)
            page->piece_count = page->recent_count = 0;
        return qr_fail(QALLOW_E_NO_MEMORY, "copy of the page table");
    }
    if (from->extra_length)
        memcpy(page->extra, from->extra, from->extra_length);
    if (count > 0)
        memcpy(page->pieces, from->pieces, count * sizeof *page->pieces);
    if ((rc = table_reserve(&to->by_id)) || (rc = table_reserve(&to->by_name)))
        return rc;
    table_put(to, &to->by_id, page->slot, 0);
    table_put(to, &to->by_name, page->slot, 1);
    to->page_count++;
    return 0;
}

/* Links all children; the order among siblings does not matter. */
static void link_all(struct qr_state *state)
{
    for (uint32_t slot = 1; slot < state->slot_count; slot++)
        if (qr_slot(state, slot)->kind)
            link_child(state, qr_slot(state, slot));
}

int qr_state_clone(const struct qr_state *state, struct qr_state **out)
{
    struct qr_state *copy = NULL;
    int rc = qr_state_create(&copy);
    if (rc)
        return rc;
    for (uint32_t slot = 1; slot < state->slot_count && !rc; slot++)
        if (qr_slot(state, slot)->kind)
            rc = copy_page(copy, qr_slot(state, slot));
    if (rc) {
        qr_state_destroy(copy);
        return rc;
    }
    link_all(copy);
    copy->bytes = state->bytes;
    copy->piece_total = state->piece_total;
    copy->epoch = state->epoch;
    copy->next_id = state->next_id;
    copy->time_ns = state->time_ns;
    copy->digest = state->digest;
    *out = copy;
    return 0;
}

int qr_state_compact(struct qr_state *state)
{
    if (state->dead < 1024 || state->dead < state->page_count)
        return 0;
    struct qr_state *copy;
    int rc = qr_state_clone(state, &copy);
    if (rc)
        return rc;
    qr_state_move_held(state, copy);
    copy->places = state->places;
    copy->is_final = state->is_final;
    copy->summed_to = state->summed_to == UINT32_MAX ? UINT32_MAX : copy->slot_count;
    struct qr_state old = *state;
    *state = *copy;
    *copy = old;
    qr_state_destroy(copy);
    return 0;
}
