/* SPDX-License-Identifier: Apache-2.0 */
/* See model.h. */
#define XXH_INLINE_ALL
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "content.h"
#include "model.h"
#include "runtime/elements.h"
#include "runtime/format.h"
#include "sim_os.h"

/* --- bytes --- */

static uint64_t seed_of(uint64_t id) { return XXH3_64bits(&id, sizeof id); }

static struct qb_u128 hash128(const void *bytes, size_t length, uint64_t seed)
{
    XXH128_hash_t hash = XXH3_128bits_withSeed(bytes, length, seed);
    return (struct qb_u128){hash.low64, hash.high64};
}

static struct model_bytes *new_bytes(size_t length)
{
    struct model_bytes *bytes = sim_allocate(sizeof *bytes + length);
    bytes->references = 1;
    bytes->length = length;
    return bytes;
}

static void release(struct model_bytes *bytes)
{
    if (bytes && --bytes->references == 0)
        free(bytes);
}

static void sum_cells(struct model_bytes *bytes, uint64_t id)
{
    uint64_t seed = seed_of(id);
    bytes->sum = (struct qb_u128){0, 0};
    for (size_t at = 0, cell = 0; at < bytes->length; at += 128, cell++) {
        static const uint8_t zeros[128];
        size_t n = bytes->length - at < 128 ? bytes->length - at : 128;
        if (!memcmp(bytes->at + at, zeros, n))
            continue;
        bytes->sum = qb_u128_add(
            bytes->sum, hash128(bytes->at + at, n, seed + cell * UINT64_C(0x9E3779B97F4A7C15)));
    }
}

/* --- states --- */

struct model_state *model_copy(const struct model_state *state)
{
    struct model_state *copy = sim_allocate(sizeof *copy);
    if (!state) {
        copy->next_id = 1;
        return copy;
    }
    *copy = *state;
    for (size_t i = 0; i < copy->count; i++)
        copy->pages[i].bytes->references++;
    return copy;
}

void model_free(struct model_state *state)
{
    for (size_t i = 0; state && i < state->count; i++)
        release(state->pages[i].bytes);
    free(state);
}

static void put(uint8_t **at, const void *bytes, size_t n)
{
    if (n)
        memcpy(*at, bytes, n);
    *at += n;
}

struct qb_u128 model_digest(const struct model_state *state)
{
    struct qb_u128 digest = {0, 0};
    for (size_t i = 0; i < state->count; i++) {
        const struct model_page *page = &state->pages[i];
        uint8_t buffer[256], *at = buffer, kind = (uint8_t)page->kind;
        uint64_t size = page->bytes->length;
        uint16_t name_length = (uint16_t)page->name_length;
        put(&at, &page->id, 8);
        put(&at, &page->parent, 8);
        put(&at, &size, 8);
        put(&at, &page->mtime_ns, 8);
        put(&at, &page->mode, 4);
        put(&at, &name_length, 2);
        put(&at, &page->extra_length, 2);
        put(&at, &kind, 1);
        put(&at, page->name, page->name_length);
        put(&at, page->extra, page->extra_length);
        digest = qb_u128_add(digest, hash128(buffer, (size_t)(at - buffer), seed_of(page->id)));
        digest = qb_u128_add(digest, page->bytes->sum);
    }
    return digest;
}

static struct model_page *find(struct model_state *state, uint64_t id)
{
    for (size_t i = 0; i < state->count; i++) {
        if (state->pages[i].id == id)
            return &state->pages[i];
    }
    return NULL;
}

static int has_children(const struct model_state *state, uint64_t id)
{
    for (size_t i = 0; i < state->count; i++) {
        if (state->pages[i].parent == id)
            return 1;
    }
    return 0;
}

static int is_below(struct model_state *state, uint64_t id, uint64_t ancestor)
{
    for (; id != 0; id = find(state, id)->parent) {
        if (id == ancestor)
            return 1;
    }
    return 0;
}

static int name_taken(const struct model_state *state, uint64_t parent, const char *name,
                      size_t length)
{
    for (size_t i = 0; i < state->count; i++) {
        const struct model_page *page = &state->pages[i];
        if (page->parent == parent && page->name_length == length &&
            memcmp(page->name, name, length) == 0)
            return 1;
    }
    return 0;
}

/* --- random changes --- */

/* A free name below `parent`: any bytes but NUL. */
static size_t random_name(const struct model_state *state, uint64_t parent, char *name,
                          uint64_t *random)
{
    size_t length;
    do {
        length = 1 + sim_below(random, sim_below(random, 4) ? 6 : 40);
        for (size_t i = 0; i < length; i++)
            name[i] = (char)(sim_below(random, 8) ? 'a' + sim_below(random, 26)
                                                  : 1 + sim_below(random, 255));
    } while (name_taken(state, parent, name, length));
    return length;
}

static uint64_t random_directory(const struct model_state *state, uint64_t *random)
{
    uint64_t chosen = 0;
    for (size_t i = 0, seen = 1; i < state->count; i++) {
        if (state->pages[i].kind == QR_KIND_DIRECTORY && sim_below(random, ++seen) == 0)
            chosen = state->pages[i].id;
    }
    return chosen;
}

static struct qr_attributes random_attributes(struct model_page *page, uint64_t *random)
{
    page->mode = (uint32_t)sim_below(random, 010000);
    page->mtime_ns = (int64_t)next_random(random);
    page->extra_length =
        page->kind == QR_KIND_TENSOR ? (uint16_t)sim_below(random, sizeof page->extra + 1) : 0;
    for (size_t i = 0; i < page->extra_length; i++)
        page->extra[i] = (uint8_t)next_random(random);
    return (struct qr_attributes){page->mode, page->mtime_ns, page->extra, page->extra_length};
}

static int change_create(struct model_state *state, struct qr_txn *txn, struct qr_batch *batch,
                         uint64_t *random)
{
    static const enum qr_kind kinds[] = {QR_KIND_RAW,       QR_KIND_FILE,    QR_KIND_FILE,
                                         QR_KIND_DIRECTORY, QR_KIND_SYMLINK, QR_KIND_CONFIG,
                                         QR_KIND_TENSOR};
    if (state->count == MODEL_PAGES)
        return 0;
    struct model_page *page = &state->pages[state->count];
    memset(page, 0, sizeof *page);
    page->kind = kinds[sim_below(random, sizeof kinds / sizeof kinds[0])];
    page->parent = random_directory(state, random);
    page->name_length = random_name(state, page->parent, page->name, random);
    struct qr_attributes attributes = random_attributes(page, random);
    page->id = qr_txn_new_id(txn);
    page->bytes = new_bytes(0);
    page->version = state->epoch;
    state->count++;
    state->next_id = page->id + 1;
    return qr_batch_page_create(batch, page->id, page->parent, page->name, page->name_length,
                                page->kind, &attributes);
}

static void random_bytes(uint8_t *bytes, size_t length, uint64_t *random)
{
    size_t at = 0;
    int text = sim_below(random, 2) == 0; /* compresses */
    for (; at + 8 <= length; at += 8) {
        uint64_t word = next_random(random);
        if (text)
            word = (word & UINT64_C(0x0f0f0f0f0f0f0f0f)) | UINT64_C(0x6060606060606060);
        memcpy(bytes + at, &word, 8);
    }
    for (; at < length; at++)
        bytes[at] = (uint8_t)next_random(random);
}

/* The old content with bytes [at, at + cut) replaced by `length` new ones. */
static struct model_bytes *splice(const struct model_bytes *old, size_t at, size_t cut,
                                  size_t length)
{
    struct model_bytes *bytes = new_bytes(old->length - cut + length);
    memcpy(bytes->at, old->at, at);
    memcpy(bytes->at + at + length, old->at + at + cut, old->length - at - cut);
    return bytes;
}

/* A new content for a page: overwritten, inserted into, cut, moved about, zeroed, or all new. */
static struct model_bytes *random_edit(const struct model_bytes *old, uint64_t *random, int big)
{
    size_t at = sim_below(random, old->length + 1), rest = old->length - at;
    size_t cut = sim_below(random, rest + 1), length = sim_below(random, 600);
    struct model_bytes *bytes;
    if (cut > 600 && sim_below(random, 4))
        cut = 600;
    switch (sim_below(random, big ? 11 : 8)) {
    case 0: /* insert or append */
        bytes = splice(old, at, 0, length);
        random_bytes(bytes->at + at, length, random);
        return bytes;
    case 1: /* remove or truncate */
        return splice(old, at, cut, 0);
    case 2: /* move a block to the front */
        bytes = splice(old, at, 0, 0);
        memcpy(bytes->at, old->at + at, cut);
        memcpy(bytes->at + cut, old->at, at);
        return bytes;
    case 3: /* zeros */
        bytes = splice(old, at, cut, cut + length);
        memset(bytes->at + at, 0, cut + length);
        return bytes;
    case 4: /* a few single bytes */
        bytes = splice(old, 0, 0, 0);
        for (int i = 0; i < 5 && old->length; i++)
            bytes->at[sim_below(random, old->length)] ^= (uint8_t)(1 + sim_below(random, 255));
        return bytes;
    case 5: /* all new */
        bytes = new_bytes(sim_below(random, sim_below(random, 4) ? 3000 : 20000));
        random_bytes(bytes->at, bytes->length, random);
        return bytes;
    case 8: /* big: over a megabyte, so that it takes several frames, and makes keyframes due */
    case 9:
    case 10:
        bytes = new_bytes(1000000 + sim_below(random, 1000000));
        random_bytes(bytes->at, bytes->length, random);
        return bytes;
    default: /* replace */
        bytes = splice(old, at, cut, length);
        random_bytes(bytes->at + at, length, random);
        return bytes;
    }
}

/* Sometimes the new content is that of another page, edited. */
static int change_content(struct model_state *state, struct qr_batch *batch, uint64_t *random,
                          int big)
{
    struct model_page *page = &state->pages[sim_below(random, state->count)];
    struct model_page *base = page;
    struct qr_edits edits = {0};
    if (page->kind == QR_KIND_DIRECTORY)
        return 0;
    if (sim_below(random, 5) == 0)
        base = &state->pages[sim_below(random, state->count)];
    struct model_bytes *bytes = random_edit(base->bytes, random, big);
    if (bytes->length > 4000000) {
        release(bytes);
        bytes = new_bytes(0);
    }
    sum_cells(bytes, page->id);
    int rc =
        qr_diff(base->bytes->at, base->bytes->length, bytes->at, bytes->length, 1 << 20, &edits);
    if (rc == 0 && (edits.count > 0 || base != page)) {
        rc = qr_batch_delta(batch, page->id, base == page ? 0 : base->id, base->bytes->length,
                            bytes->length, &edits, sim_below(random, 2) ? base->bytes->at : NULL,
                            bytes->sum);
        page->version = state->epoch;
    }
    qr_edits_finish(&edits);
    release(page->bytes);
    page->bytes = bytes;
    return rc;
}

/* Some elements of a content are others. */
static struct model_bytes *random_elements(const struct model_bytes *old, unsigned width,
                                           uint64_t *random)
{
    struct model_bytes *bytes = splice(old, 0, 0, 0);
    uint64_t every = 1 + sim_below(random, 50);
    for (size_t at = 0; at < bytes->length; at += width)
        if (sim_below(random, every) == 0)
            bytes->at[at] ^= (uint8_t)(1 + sim_below(random, 255));
    return bytes;
}

/* What a CONTENT frame may be based on: the page's content, if this transaction has not changed it
 * and it stands in one place. */
static int find_base(const struct model_state *state, const struct model_page *page,
                     struct qr_store *store, struct qr_elements_job *job)
{
    struct qr_reader *reader = NULL;
    struct qr_content content = {0};
    struct qr_content_base base = {.ref = QR_REF_ZERO};
    uint8_t *buffer = NULL;
    if (page->version == state->epoch || page->bytes->length != job->length)
        return 0;
    int rc = qr_reader_create(store, 2 << 20, &reader);
    if (rc == 0)
        rc = qr_content_init(&content, qr_state_find(qr_store_state(store), page->id));
    if (rc == 0)
        rc = qr_content_base(reader, &content, 0, buffer = sim_allocate(job->length), job->length,
                             &base);
    if (rc == 0 && base.ref != QR_REF_ZERO) {
        job->old = page->bytes->at;
        job->base = base.ref;
        job->base_cost = base.cost;
    }
    free(buffer);
    qr_content_finish(&content);
    qr_reader_destroy(reader);
    return rc;
}

/* Appends a CONTENT frame. *ref stays as it is if the content is that of its base. */
static int put_content(struct qr_txn *txn, const struct qr_elements_job *job, uint64_t *random,
                       qr_ref *ref)
{
    struct qr_elements_encoder *encoder = NULL;
    const uint8_t *body;
    size_t length;
    int rc = qr_elements_encoder_create((int)sim_below(random, 2), &encoder);
    if (rc == 0)
        rc = qr_elements_encode(encoder, job, &body, &length);
    if (rc == 0 && length)
        rc = qr_txn_put_content(txn, body, length, ref);
    qr_elements_encoder_destroy(encoder);
    return rc;
}

/* The whole of a page, or a part that is inserted, as a CONTENT frame, based on what it was where
 * that can be: what a save of tensors does. */
static int change_stored(struct model_state *state, struct qr_store *store, struct qr_txn *txn,
                         struct qr_batch *batch, uint64_t *random)
{
    struct model_page *page = &state->pages[sim_below(random, state->count)];
    size_t old_length = page->bytes->length, at = 0, length;
    unsigned width = 1u << sim_below(random, 4);
    int is_whole = sim_below(random, 4) > 0;
    struct model_bytes *bytes;
    if (page->kind == QR_KIND_DIRECTORY || old_length > QR_BODY_MAX / 2)
        return 0;
    if (is_whole && old_length && old_length % width == 0) {
        bytes = random_elements(page->bytes, width, random);
        length = old_length;
    } else {
        length = width * (1 + sim_below(random, 1000));
        at = is_whole ? 0 : sim_below(random, old_length + 1);
        bytes = splice(page->bytes, at, is_whole ? old_length : 0, length);
        random_bytes(bytes->at + at, length, random);
    }
    struct qr_elements_job job = {.new_ = bytes->at + at,
                                  .length = length,
                                  .width = width,
                                  .base = QR_REF_ZERO,
                                  .cost_limit = 1 << 20};
    qr_ref ref = QR_REF_ZERO;
    int rc = is_whole ? find_base(state, page, store, &job) : 0;
    if (rc == 0)
        rc = put_content(txn, &job, random, &ref);
    sum_cells(bytes, page->id);
    if (rc == 0 && ref != QR_REF_ZERO) {
        struct qr_edit edit = {.offset = at,
                               .old_length = is_whole ? old_length : 0,
                               .new_length = length,
                               .source = QR_STORED,
                               .from = ref};
        struct qr_edits edits = {&edit, 1, 1};
        rc =
            qr_batch_delta(batch, page->id, 0, old_length, bytes->length, &edits, NULL, bytes->sum);
        page->version = state->epoch;
    }
    release(page->bytes);
    page->bytes = bytes;
    return rc;
}

static int change_rename(struct model_state *state, struct qr_batch *batch, uint64_t *random)
{
    struct model_page *page = &state->pages[sim_below(random, state->count)];
    uint64_t parent = random_directory(state, random);
    if (is_below(state, parent, page->id))
        return 0;
    char name[sizeof page->name];
    page->name_length = random_name(state, parent, name, random);
    memcpy(page->name, name, page->name_length);
    page->parent = parent;
    page->version = state->epoch;
    return qr_batch_page_rename(batch, page->id, parent, page->name, page->name_length);
}

static int change_free(struct model_state *state, struct qr_batch *batch, uint64_t *random)
{
    size_t i = sim_below(random, state->count);
    uint64_t id = state->pages[i].id;
    if (has_children(state, id))
        return 0;
    release(state->pages[i].bytes);
    memmove(&state->pages[i], &state->pages[i + 1], (--state->count - i) * sizeof state->pages[0]);
    return qr_batch_page_free(batch, id);
}

int model_change(struct model_state *state, struct qr_store *store, struct qr_txn *txn,
                 struct qr_batch *batch, uint64_t *random, int big)
{
    uint64_t what = state->count < 3 ? 0 : sim_below(random, 20);
    if (what < 2)
        return change_create(state, txn, batch, random);
    if (what == 2)
        return change_rename(state, batch, random);
    if (what == 3)
        return change_free(state, batch, random);
    if (what == 4) {
        struct model_page *page = &state->pages[sim_below(random, state->count)];
        struct qr_attributes attributes = random_attributes(page, random);
        page->version = state->epoch;
        return qr_batch_page_attributes(batch, page->id, &attributes);
    }
    if (what >= 16)
        return change_stored(state, store, txn, batch, random);
    return change_content(state, batch, random, big);
}

/* --- comparing --- */

static const char *compare_content(const struct model_page *expected, const struct qr_page *page,
                                   struct qr_reader *reader)
{
    static char text[300];
    size_t length = expected->bytes->length;
    uint8_t *bytes = sim_allocate(length);
    struct qr_content content;
    int rc = qr_content_init(&content, page);
    if (rc == 0) {
        rc = qr_content_read(reader, &content, 0, bytes, length);
        qr_content_finish(&content);
    }
    int differs = rc == 0 && memcmp(bytes, expected->bytes->at, length) != 0;
    free(bytes);
    if (rc < 0)
        snprintf(text, sizeof text, "page %llu: reading: %s", (unsigned long long)page->id,
                 qallow_error_detail());
    else if (differs)
        snprintf(text, sizeof text, "page %llu: other bytes", (unsigned long long)page->id);
    return rc < 0 || differs ? text : NULL;
}

static const char *compare_page(const struct model_page *expected, const struct qr_page *page)
{
    static char text[100];
    const char *what =
        page->id != expected->id                                ? "id"
        : page->parent != expected->parent                      ? "parent"
        : page->size != expected->bytes->length                 ? "size"
        : page->kind != expected->kind                          ? "kind"
        : page->mode != expected->mode                          ? "mode"
        : page->mtime_ns != expected->mtime_ns                  ? "mtime"
        : page->version != expected->version                    ? "version"
        : page->name_length != expected->name_length            ? "length of its name"
        : page->extra_length != expected->extra_length          ? "length of its extra bytes"
        : memcmp(page->name, expected->name, page->name_length) ? "name"
        : page->extra_length && memcmp(page->extra, expected->extra, page->extra_length)
            ? "extra bytes"
            : NULL;
    if (!what)
        return NULL;
    snprintf(text, sizeof text, "page %llu: its %s", (unsigned long long)expected->id, what);
    return text;
}

const char *model_compare(const struct model_state *expected, struct qr_store *store,
                          const struct qr_state *state, struct qr_reader *reader)
{
    const struct qr_page *page = qr_state_next_page(state, 0);
    struct qb_u128 digest = model_digest(expected), found = qr_state_digest(state);
    const char *differs = NULL;
    if (qr_state_epoch(state) != expected->epoch)
        return "the number of the epoch";
    if (qr_state_page_count(state) != expected->count)
        return "the number of pages";
    for (size_t i = 0; i < expected->count && !differs; i++) {
        if (!page)
            return "a page is missing";
        differs = compare_page(&expected->pages[i], page);
        if (!differs)
            differs = compare_content(&expected->pages[i], page, reader);
        page = qr_state_next_page(state, page->id);
    }
    if (!differs && !qb_u128_equal(digest, found))
        differs = "the digest";
    return differs;
}
