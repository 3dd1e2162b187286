/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dependency graph: its table in the log, a page by the name of ".qallow-graph" and of the kind
 * for what Qallow itself keeps. It says what the functions cannot be asked any more: which
 * definition each node had when it was computed, up to which epoch all nodes were up to date, and
 * what the volatile pages had in them.
 *
 * Content, version 1, little-endian:
 *
 *      0  u64   the bytes "QGRAPH01"
 *      8  u64   waves: counted up by every epoch that computes a node
 *     16  sum   digest of the volatile pages: low, high
 *     32  u64   count of nodes
 *     40        for each node, by ascending page id: u64 page id, u64 signature
 *
 * Valid: the magic, a size of exactly 40 + 16 * count, ascending ids. Anything else is refused.
 *
 * The page's version is the epoch of the last wave, E. A node is up to date if its signature is the
 * one in the table, and neither its page nor any of its inputs has a version after E: whoever
 * changed an input while the graph was away has left that trace. The signature is XXH3-64 of the
 * definition, as sign() below puts it together.
 *
 * A volatile page's term is XXH3-128, seed 0, of its id and size, plus the terms of its cells as in
 * the digest of the log. Its id is 2^63 and 63 bits of the XXH3-64 of its name.
 *
 * The table is written by the transaction that computes, so it is as durable as what it is about.
 */
#include <stdlib.h>
#include <string.h>

#include "runtime/graph.h"
#include "runtime/os.h"
#include "runtime/store_internal.h"

#define MAGIC UINT64_C(0x3130485041524751) /* "QGRAPH01" */
static const char table_name[] = ".qallow-graph";
enum { HEAD = 40, ENTRY = 16, DIGEST_AT = 16 };

/* --- definitions --- */

static void sign_u64(struct qr_arena *arena, uint64_t value)
{
    (void)qr_arena_put(arena, &value, sizeof value);
}

/* There is room for all of it. */
static void sign(const struct qallow_graph *graph, const struct qr_vertex *v,
                 struct qr_arena *arena)
{
    size_t name = v->name ? strlen(v->name) : 0;
    const uint64_t head[] = {v->id, v->version, v->flags, v->unit, v->input_count, name};
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        sign_u64(arena, head[i]);
    (void)qr_arena_put(arena, v->name, name);
    for (uint32_t i = 0; i < v->input_count; i++) {
        const struct qr_edge *e = &v->inputs[i];
        const uint64_t edge[] = {graph->vertices[e->from].id, e->access, e->unit, e->before,
                                 e->after};
        for (size_t k = 0; k < sizeof edge / sizeof *edge; k++)
            sign_u64(arena, edge[k]);
    }
}

int qr_vertex_sign(const struct qallow_graph *graph, struct qr_vertex *v)
{
    struct qr_arena arena = {0};
    size_t room = 6 * 8 + QR_GRAPH_NAME_MAX + (size_t)v->input_count * 5 * 8;
    if (qr_arena_put(&arena, NULL, room) == SIZE_MAX)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a node of %u inputs", v->input_count);
    arena.length = 0;
    sign(graph, v, &arena);
    v->signature = qb_kernels()->hash64(arena.bytes, arena.length, 0);
    qr_free(arena.bytes);
    return 0;
}

struct qb_u128 qr_volatile_term(uint64_t id, uint64_t size, struct qb_u128 sum)
{
    uint64_t words[2] = {id, size};
    return qb_u128_add(qb_kernels()->hash128(words, sizeof words), sum);
}

/* --- reading --- */

static int malformed(const struct qallow_graph *graph, uint64_t page)
{
    return qr_fail(QALLOW_E_SERIALIZATION, "%s: page %llu (%s) is not the table of a graph",
                   qr_quotez(qr_store_path(graph->store->store)), (unsigned long long)page,
                   table_name);
}

static int parse(struct qallow_graph *graph, const struct qr_vertex *table)
{
    const uint8_t *p = table->bytes;
    uint64_t count = table->size >= HEAD ? qr_load64(p + 32) : 0, last = 0;
    if (table->size < HEAD || qr_load64(p) != MAGIC || count > (table->size - HEAD) / ENTRY ||
        table->size != HEAD + count * ENTRY)
        return malformed(graph, table->id);
    if (count && !(graph->stored = qr_malloc(count * sizeof *graph->stored)))
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a graph of %llu nodes",
                       (unsigned long long)count);
    for (uint64_t i = 0; i < count; i++) {
        graph->stored[i] = (struct qr_stored){qr_load64(p + HEAD + i * ENTRY),
                                              qr_load64(p + HEAD + i * ENTRY + 8)};
        if (graph->stored[i].page <= last)
            return malformed(graph, table->id);
        last = graph->stored[i].page;
    }
    graph->stored_count = count;
    graph->waves = qr_load64(p + 8);
    return 0;
}

int qr_graph_table_load(struct qallow_graph *graph)
{
    struct qr_vertex *table = &graph->vertices[0];
    const struct qr_page *page =
        qr_state_child(qr_store_state(graph->store->store), 0, table_name, sizeof table_name - 1);
    graph->table_is_old = 1;
    if (!page)
        return 0;
    if (page->kind != QR_KIND_CONFIG)
        return malformed(graph, page->id);
    table->id = graph->table_page = page->id;
    graph->stored_epoch = page->version;
    int rc = qr_vertex_load(graph, table, table);
    graph->undo_count = 0;
    return rc ? rc : parse(graph, table);
}

static int by_page(const void *x, const void *y)
{
    const struct qr_stored *a = x, *b = y;
    return a->page < b->page ? -1 : a->page > b->page;
}

static int is_unchanged(const struct qallow_graph *graph, uint64_t id)
{
    const struct qr_page *page =
        id & QR_GRAPH_VOLATILE ? NULL : qr_state_find(qr_store_state(graph->store->store), id);
    return page && page->version <= graph->stored_epoch;
}

int qr_graph_is_current(struct qallow_graph *graph, const struct qr_vertex *v)
{
    struct qr_stored key = {.page = v->id};
    const struct qr_stored *found =
        graph->stored_count
            ? bsearch(&key, graph->stored, graph->stored_count, sizeof *graph->stored, by_page)
            : NULL;
    if (!found || found->signature != v->signature || !is_unchanged(graph, v->id))
        return 0;
    for (uint32_t i = 0; i < v->input_count; i++)
        if (!is_unchanged(graph, graph->vertices[qr_input(v, i)].id))
            return 0;
    return 1;
}

int qr_graph_table_digest(const struct qallow_graph *graph, struct qallow_view *view,
                          struct qb_u128 *digest)
{
    struct qallow_page page = QALLOW_PAGE_INIT;
    uint8_t bytes[HEAD];
    int rc = qallow_page_lookup(view, table_name, &page);
    if (!rc && page.bytes < HEAD)
        rc = malformed(graph, page.id);
    if (!rc)
        rc = qallow_page_read(view, page.id, 0, bytes, sizeof bytes);
    if (!rc && qr_load64(bytes) != MAGIC)
        rc = malformed(graph, page.id);
    if (!rc)
        *digest = (struct qb_u128){qr_load64(bytes + DIGEST_AT), qr_load64(bytes + DIGEST_AT + 8)};
    return rc;
}

/* --- writing --- */

static int build(struct qallow_graph *graph)
{
    struct qr_arena *arena = &graph->table_bytes;
    uint64_t count = 0, entries = graph->table_is_old ? graph->nodes : 0;
    arena->length = 0;
    if (qr_arena_put(arena, NULL, HEAD + entries * ENTRY) == SIZE_MAX)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the table of %llu nodes",
                       (unsigned long long)graph->nodes);
    struct qr_stored *entry = (struct qr_stored *)(arena->bytes + HEAD);
    for (uint32_t i = 1; i < graph->count && entries; i++)
        if (graph->vertices[i].function)
            entry[count++] =
                (struct qr_stored){graph->vertices[i].id, graph->vertices[i].signature};
    qr_assert(count == entries);
    if (count)
        qsort(entry, count, sizeof *entry, by_page);
    const uint64_t head[] = {MAGIC, graph->waves + 1, graph->volatile_digest.lo,
                             graph->volatile_digest.hi, graph->nodes};
    memcpy(arena->bytes, head, sizeof head);
    return 0;
}

static int create(struct qallow_graph *graph, struct qr_vertex *table)
{
    const struct qr_attributes attributes = {0};
    table->id = graph->table_page = qr_txn_new_id(graph->txn);
    table->is_loaded = 1;
    table->size = 0;
    table->sum = (struct qb_u128){0, 0};
    graph->table_is_new = 1;
    return qr_batch_page_create(graph->batch, table->id, 0, table_name, sizeof table_name - 1,
                                QR_KIND_CONFIG, &attributes);
}

int qr_graph_table_write(struct qallow_graph *graph)
{
    struct qr_vertex *table = &graph->vertices[0];
    int rc = build(graph);
    if (!rc && !graph->table_page && graph->store->structure &&
        graph->store->structure != graph->store->landing)
        return 0; /* another transaction has ids of new pages: a later wave will write it */
    if (!rc && !graph->table_page)
        rc = create(graph, table);
    if (!rc && !table->is_loaded)
        rc = qr_vertex_load(graph, table, table);
    uint64_t old_size = table->size;
    graph->edits.count = 0;
    if (!rc && graph->table_is_old)
        rc = qr_vertex_resize(graph, table, graph->table_bytes.length);
    if (!rc)
        rc = qr_vertex_store(graph, table, 0, graph->table_bytes.bytes, graph->table_bytes.length,
                             old_size, &graph->edits);
    if (!rc)
        rc = qr_vertex_write(graph, table, old_size);
    table->changed.count = 0;
    graph->table_is_written = rc == 0;
    return rc;
}

int qr_graph_table_is_due(const struct qallow_graph *graph)
{
    const uint8_t none[16] = {0};
    const uint8_t *there = graph->table_page ? graph->vertices[0].bytes + DIGEST_AT : none;
    return !graph->options.no_table && (qr_load64(there) != graph->volatile_digest.lo ||
                                        qr_load64(there + 8) != graph->volatile_digest.hi);
}

void qr_graph_table_ended(struct qallow_graph *graph, uint64_t epoch)
{
    struct qr_vertex *table = &graph->vertices[0];
    if (!epoch && graph->table_is_new) {
        qr_vertex_unload(graph, table);
        table->id = graph->table_page = 0;
    }
    if (epoch && graph->table_is_written)
        graph->table_is_old = 0;
    graph->table_is_new = graph->table_is_written = 0;
}
