/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dependency graph: making it, and its nodes.
 *
 * Vertices are pages: nodes, which have a function, and sources, which are there because nodes
 * depend on them and go with the last of those. They lie in one array and know each other by their
 * places in it. A new definition is made whole beside the vertex and then put in its place, so that
 * whatever fails leaves the graph as it was.
 *
 * All calls take the store's lock for calls, which a commit holds while functions run; a function
 * that calls the graph would wait for itself and is told so instead.
 */
#include "runtime/graph.h"

#include <stdio.h>
#include <string.h>

#include "runtime/api_transaction.h"
#include "runtime/os.h"

enum { VERTICES_MAX = 1 << 28, LINE = 64 };
_Static_assert(offsetof(struct qr_vertex, bytes) == LINE, "what a hop touches is in three lines");
_Static_assert(offsetof(struct qr_vertex, pending) == 3 * LINE, "the same");
_Static_assert(sizeof(struct qr_vertex) % LINE == 0, "all of them are");

static int enter(struct qallow_graph *graph, int is_reading)
{
    if (qr_graph_in_function)
        return qr_fail(QALLOW_E_STATE, "a page's function must not call the graph");
    if (!graph->store)
        return 0;
    pthread_mutex_lock(&graph->store->calls);
    if (is_reading)
        pthread_rwlock_rdlock(&graph->store->newest_lock);
    pthread_mutex_lock(
        &graph->store->store->sharing.lock); /* who claims pages asks whose they are */
    return 0;
}

int qr_graph_enter(struct qallow_graph *graph) { return enter(graph, 0); }
int qr_graph_enter_reading(struct qallow_graph *graph) { return enter(graph, 1); }

void qr_graph_leave(struct qallow_graph *graph)
{
    if (!graph->store)
        return;
    pthread_mutex_unlock(&graph->store->store->sharing.lock);
    pthread_mutex_unlock(&graph->store->calls);
}

const char *qr_vertex_name(const struct qr_vertex *v)
{
    static _Thread_local char names[4][320];
    static _Thread_local unsigned next;
    char *name = names[next++ % 4];
    const char *by = v->name ? qr_quotez(v->name) : "";
    if (v->volatile_name)
        snprintf(name, sizeof names[0], "page \"%s\"%s%s%s", qr_quotez(v->volatile_name),
                 v->name ? " (" : "", by, v->name ? ")" : "");
    else
        snprintf(name, sizeof names[0], "page %llu%s%s%s", (unsigned long long)v->id,
                 v->name ? " (" : "", by, v->name ? ")" : "");
    return name;
}

/* ---------------------------------------------------------------- vertices */

static uint32_t slot_of(const struct qallow_graph *graph, uint64_t id)
{
    uint32_t mask = graph->table_size - 1;
    uint32_t slot = (uint32_t)(id * UINT64_C(0x9E3779B97F4A7C15) >> 32) & mask;
    while (graph->table[slot] && graph->vertices[graph->table[slot] - 1].id != id)
        slot = (slot + 1) & mask;
    return slot;
}

struct qr_vertex *qr_graph_find(const struct qallow_graph *graph, uint64_t id)
{
    uint32_t found = id ? graph->table[slot_of(graph, id)] : 0;
    return found ? &graph->vertices[found - 1] : NULL;
}

static void fill_table(struct qallow_graph *graph)
{
    memset(graph->table, 0, graph->table_size * sizeof *graph->table);
    for (uint32_t i = 1; i < graph->count; i++)
        if (graph->vertices[i].id)
            graph->table[slot_of(graph, graph->vertices[i].id)] = i + 1;
}

/* Room for `more` vertices: none of what comes then fails for want of it. */
static int reserve(struct qallow_graph *graph, uint32_t more)
{
    uint32_t capacity = graph->capacity ? graph->capacity : 16;
    if (more <= graph->free_count || graph->count + more <= graph->capacity)
        return 0;
    while (capacity < graph->count + more)
        capacity *= 2;
    if (capacity > VERTICES_MAX)
        return qr_fail(QALLOW_E_LIMIT, "a graph of more than %d pages", VERTICES_MAX);
    void *memory = qr_malloc(capacity * sizeof *graph->vertices + LINE);
    uint32_t *marks = memory ? qr_calloc(capacity, sizeof *marks) : NULL;
    uint32_t *table = marks ? qr_calloc((size_t)capacity * 2, sizeof *table) : NULL;
    if (!table) {
        qr_free(marks);
        qr_free(memory);
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a graph of %u pages", capacity);
    }
    struct qr_vertex *vertices = (struct qr_vertex *)(((uintptr_t)memory + LINE - 1) / LINE * LINE);
    if (graph->count)
        memcpy(vertices, graph->vertices, graph->count * sizeof *vertices);
    qr_free(graph->vertices_memory);
    qr_free(graph->marks);
    qr_free(graph->table);
    graph->vertices_memory = memory;
    graph->vertices = vertices;
    graph->marks = marks;
    graph->table = table;
    graph->table_size = capacity * 2;
    graph->capacity = capacity;
    fill_table(graph);
    return 0;
}

/* The vertex of a page, made if need be: there is room. */
static uint32_t take_vertex(struct qallow_graph *graph, uint64_t id)
{
    struct qr_vertex *v = qr_graph_find(graph, id);
    uint32_t i;
    if (v)
        return qr_vertex_index(graph, v);
    if (graph->free_count) {
        i = graph->free_first;
        graph->free_first = graph->vertices[i].rank;
        graph->free_count--;
    } else {
        i = graph->count++;
    }
    graph->vertices[i] = (struct qr_vertex){.id = id};
    graph->table[slot_of(graph, id)] = i + 1;
    graph->is_ordered = 0;
    return i;
}

static void free_definition(struct qr_vertex *v)
{
    qr_free(v->inputs);
    qr_free(v->name);
    v->inputs = NULL;
    v->name = NULL;
    v->function = NULL;
    v->input_count = 0;
}

static void free_vertex(struct qallow_graph *graph, struct qr_vertex *v)
{
    free_definition(v);
    qr_vertex_unload(graph, v);
    qr_free(v->volatile_name);
    qr_free(v->children);
    qr_ranges_finish(&v->changed);
    qr_ranges_finish(&v->pending);
}

/* Takes an id out of the table; those behind it move up. */
static void forget_id(struct qallow_graph *graph, uint64_t id)
{
    uint32_t mask = graph->table_size - 1, slot = slot_of(graph, id);
    graph->table[slot] = 0;
    for (uint32_t next = (slot + 1) & mask; graph->table[next]; next = (next + 1) & mask) {
        uint32_t moved = graph->table[next];
        graph->table[next] = 0;
        graph->table[slot_of(graph, graph->vertices[moved - 1].id)] = moved;
    }
}

/* A source that nobody reads any more goes. */
static void drop_source(struct qallow_graph *graph, uint32_t i)
{
    struct qr_vertex *v = &graph->vertices[i];
    if (v->function || v->child_count || i == 0 || !v->id)
        return;
    graph->pending_count -= v->is_pending;
    forget_id(graph, v->id);
    free_vertex(graph, v);
    *v = (struct qr_vertex){.rank = graph->free_first}; /* the next free one */
    graph->free_first = i;
    graph->free_count++;
    graph->is_ordered = 0;
}

void qr_graph_set_stale(struct qallow_graph *graph, struct qr_vertex *v, uint8_t why)
{
    if (v->is_stale)
        return;
    v->is_stale = 1;
    v->why = why;
    graph->stale_count++;
}

/* ---------------------------------------------------------------- edges */

static int reserve_child(struct qr_vertex *v)
{
    if (v->child_count < v->child_capacity)
        return 0;
    uint32_t capacity = v->child_capacity ? v->child_capacity * 2 : 2;
    uint32_t *grown = qr_realloc(v->children, capacity * sizeof *grown);
    if (!grown)
        return qr_fail(QALLOW_E_NO_MEMORY, "%s: no memory for %u dependents", qr_vertex_name(v),
                       capacity);
    v->children = grown;
    v->child_capacity = capacity;
    return 0;
}

/* Takes a node out of the lists of its inputs. Sources may be left that nobody reads. */
static void unlink_inputs(struct qallow_graph *graph, uint32_t node)
{
    struct qr_vertex *v = &graph->vertices[node];
    for (uint32_t i = 0; i < v->input_count; i++) {
        struct qr_vertex *input = &graph->vertices[v->inputs[i].from];
        uint32_t k = 0;
        while (input->children[k] != node)
            k++;
        input->child_count--;
        memmove(&input->children[k], &input->children[k + 1],
                (input->child_count - k) * sizeof *input->children);
    }
    graph->edges -= v->input_count;
}

/* ---------------------------------------------------------------- definitions */

static int check_dependency(const struct qallow_node_options *o, uint64_t i)
{
    const struct qallow_dependency *d = &o->inputs[i];
    QR_CHECK_ARGUMENT(d->page != 0 && d->reserved32 == 0);
    QR_CHECK_ARGUMENT(d->access <= QALLOW_WINDOW);
    QR_CHECK_ARGUMENT(d->access == QALLOW_WHOLE || d->unit != 0);
    QR_CHECK_ARGUMENT(d->access == QALLOW_WINDOW || (d->before == 0 && d->after == 0));
    return 0;
}

static int check_node(const struct qallow_node_options *theirs, struct qallow_node_options *o)
{
    int rc = qr_api_options(theirs, o, sizeof *o, sizeof *o);
    if (rc)
        return rc;
    QR_CHECK_ARGUMENT(o->function != NULL);
    QR_CHECK_ARGUMENT(
        (o->flags & ~(QALLOW_NODE_VOLATILE | QALLOW_NODE_ALWAYS | QALLOW_NODE_WHOLE_UNITS |
                       QALLOW_NODE_USES_LENGTH)) == 0);
    QR_CHECK_ARGUMENT(o->inputs != NULL || o->input_count == 0);
    if (o->input_count > QR_GRAPH_INPUTS_MAX)
        return qr_fail(QALLOW_E_LIMIT, "a node with %llu inputs: at most %d",
                       (unsigned long long)o->input_count, QR_GRAPH_INPUTS_MAX);
    if (o->name && strlen(o->name) > QR_GRAPH_NAME_MAX)
        return qr_fail(QALLOW_E_LIMIT, "the name of a function: at most %d bytes",
                       QR_GRAPH_NAME_MAX);
    for (size_t i = 0; i < sizeof o->reserved / sizeof *o->reserved; i++)
        QR_CHECK_ARGUMENT(o->reserved[i] == 0);
    for (uint64_t i = 0; i < o->input_count && !rc; i++)
        rc = check_dependency(o, i);
    return rc;
}

static int copy_text(const char *text, char **copy)
{
    size_t size = text ? strlen(text) + 1 : 0;
    *copy = size ? qr_malloc(size) : NULL;
    if (size && !*copy)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a name");
    if (size)
        memcpy(*copy, text, size);
    return 0;
}

/* One more edge, as a vertex; if that is new, it is a source then. Marks what is an input. */
static int make_edge(struct qallow_graph *graph, const struct qallow_dependency *d,
                     struct qr_vertex *made)
{
    const struct qr_vertex *there = qr_graph_find(graph, d->page);
    if (d->page & QR_GRAPH_VOLATILE && !(there && there->function) && d->page != made->id)
        return qr_fail(QALLOW_E_PAGE_NOT_FOUND, "no volatile page %llx in the graph",
                       (unsigned long long)d->page);
    uint32_t from = take_vertex(graph, d->page);
    if (graph->marks[from])
        return qr_fail(QALLOW_E_ARGUMENT, "page %llu is given as an input twice",
                       (unsigned long long)d->page);
    graph->marks[from] = 1;
    made->inputs[made->input_count++] =
        (struct qr_edge){from, d->access, d->unit, d->before, d->after};
    return reserve_child(&graph->vertices[from]);
}

/* The edges. There is room for them. */
static int make_edges(struct qallow_graph *graph, const struct qallow_node_options *o,
                      struct qr_vertex *made)
{
    int rc = 0;
    made->inputs = o->input_count ? qr_malloc(o->input_count * sizeof *made->inputs) : NULL;
    if (o->input_count && !made->inputs)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for %llu inputs",
                       (unsigned long long)o->input_count);
    for (uint64_t i = 0; i < o->input_count && !rc; i++) {
        const struct qallow_dependency *d = &o->inputs[i];
        rc = make_edge(graph, d, made);
        if (d->access != QALLOW_WHOLE && !made->is_ranged) {
            made->is_ranged = 1;
            made->unit = o->unit ? o->unit : d->unit;
        }
    }
    for (uint32_t i = 0; i < made->input_count; i++)
        graph->marks[made->inputs[i].from] = 0;
    made->first = made->input_count ? made->inputs[0].from : 0;
    return rc;
}

/* Makes a definition for vertex `node` in *made, whose id and flags are set. */
static int make_definition(struct qallow_graph *graph, const struct qallow_node_options *o,
                           uint32_t node, struct qr_vertex *made)
{
    made->function = o->function;
    made->context = o->context;
    made->version = o->version;
    made->fuel = o->fuel ? o->fuel : UINT64_MAX;
    int rc = copy_text(o->name, &made->name);
    if (!rc)
        rc = make_edges(graph, o, made);
    if (!rc && graph->inputs_capacity < o->input_count) {
        size_t capacity = o->input_count * 2;
        struct qallow_input *grown = qr_realloc(graph->inputs, capacity * sizeof *grown);
        if (!grown)
            return qr_fail(QALLOW_E_NO_MEMORY, "no memory for %zu inputs", capacity);
        graph->inputs = grown;
        graph->inputs_capacity = capacity;
    }
    if (!rc)
        rc = qr_vertex_sign(graph, made);
    return rc ? rc : qr_graph_check_cycle(graph, node, made->inputs, made->input_count);
}

/* The sources of a definition that came to nothing. */
static void drop_definition(struct qallow_graph *graph, struct qr_vertex *made)
{
    for (uint32_t i = 0; i < made->input_count; i++)
        drop_source(graph, made->inputs[i].from);
    free_definition(made);
}

/* Puts a definition in its place. Nothing fails any more. */
static void install(struct qallow_graph *graph, uint32_t node, struct qr_vertex *made)
{
    struct qr_vertex *v = &graph->vertices[node];
    v->function = made->function;
    v->context = made->context;
    v->name = made->name;
    v->version = made->version;
    v->fuel = made->fuel;
    v->unit = made->unit;
    v->is_ranged = made->is_ranged;
    v->signature = made->signature;
    v->inputs = made->inputs;
    v->first = made->first;
    v->input_count = made->input_count;
    for (uint32_t i = 0; i < v->input_count; i++) {
        struct qr_vertex *input = &graph->vertices[v->inputs[i].from];
        uint32_t at = input->child_count++; /* by ascending id */
        for (; at > 0 && graph->vertices[input->children[at - 1]].id > v->id; at--)
            input->children[at] = input->children[at - 1];
        input->children[at] = node;
    }
    graph->edges += v->input_count;
    graph->is_ordered = 0;
    graph->table_is_old = 1;
}

/* The id of a new node. */
static int choose_id(const struct qallow_graph *graph, const struct qallow_node_options *o,
                     uint64_t *id)
{
    size_t length = o->volatile_name ? strlen(o->volatile_name) : 0;
    if (o->flags & QALLOW_NODE_VOLATILE) {
        QR_CHECK_ARGUMENT(o->page == 0 && length >= 1 && length <= QR_GRAPH_NAME_MAX);
        *id = QR_GRAPH_VOLATILE | qb_kernels()->hash64(o->volatile_name, length, 0);
    } else {
        QR_CHECK_ARGUMENT(o->page != 0 && o->page < QR_GRAPH_VOLATILE && length == 0);
        *id = o->page;
    }
    if (*id == graph->table_page)
        return qr_fail(QALLOW_E_STATE, "page %llu is the graph's own", (unsigned long long)*id);
    const struct qr_vertex *there = qr_graph_find(graph, *id);
    if (there && there->function)
        return qr_fail(QALLOW_E_PAGE_EXISTS, "%s is a node already", qr_vertex_name(there));
    if (graph->store && qr_api_is_claimed(graph->store, *id) &&
        qr_state_find(qr_store_state(graph->store->store), *id))
        return qr_fail(QALLOW_E_BUSY, "page %llu belongs to a transaction until that ends",
                       (unsigned long long)*id);
    return 0;
}

static int add_node(struct qallow_graph *graph, const struct qallow_node_options *o, uint64_t *id)
{
    struct qr_vertex made = {.flags = (uint8_t)o->flags};
    char *volatile_name = NULL;
    uint32_t node = 0;
    int rc = choose_id(graph, o, id);
    if (!rc)
        rc = reserve(graph, 1 + (uint32_t)o->input_count);
    if (!rc)
        rc = copy_text(o->volatile_name, &volatile_name);
    if (rc)
        return rc;
    made.id = *id;
    node = take_vertex(graph, *id);
    rc = make_definition(graph, o, node, &made);
    if (rc) {
        drop_definition(graph, &made);
        drop_source(graph, node);
        qr_free(volatile_name);
        return rc;
    }
    struct qr_vertex *v = &graph->vertices[node];
    v->flags = made.flags;
    v->volatile_name = volatile_name;
    v->past = (struct qr_past){0};
    v->computed = v->equal = v->computed_bytes = 0;
    install(graph, node, &made);
    if (v->is_loaded) /* it was a source: sums are kept of nodes only */
        qr_vertex_unload(graph, v);
    for (uint32_t i = 0; i < v->child_count && v->is_pending; i++) /* what they have not seen yet */
        qr_graph_set_stale(graph, &graph->vertices[v->children[i]], QALLOW_WHY_INPUT);
    graph->pending_count -= v->is_pending;
    v->is_pending = 0;
    v->pending.count = 0;
    graph->nodes++;
    if (!qr_graph_is_current(graph, v))
        qr_graph_set_stale(graph, v, QALLOW_WHY_DEFINITION);
    return 0;
}

int qallow_graph_add(struct qallow_graph *graph, const struct qallow_node_options *options,
                     uint64_t *page)
{
    struct qallow_node_options o = QALLOW_NODE_OPTIONS_INIT;
    uint64_t id = 0;
    QR_CHECK_ARGUMENT(graph != NULL && options != NULL);
    int rc = check_node(options, &o);
    if (rc || (rc = qr_graph_enter(graph)))
        return rc;
    rc = add_node(graph, &o, &id);
    qr_graph_leave(graph);
    if (!rc && page)
        *page = id;
    return rc;
}

static int find_node(const struct qallow_graph *graph, uint64_t page, struct qr_vertex **v)
{
    *v = qr_graph_find(graph, page);
    if (*v && (*v)->function)
        return 0;
    return qr_fail(QALLOW_E_PAGE_NOT_FOUND, "page %llu is not computed by the graph",
                   (unsigned long long)page);
}

/* The vertex without its old inputs is looked at for cycles, and gets them back if there is one. */
static int replace_node(struct qallow_graph *graph, const struct qallow_node_options *o)
{
    struct qr_vertex made = {.id = o->page}, *v, old;
    int rc = find_node(graph, o->page, &v);
    if (!rc && o->flags != v->flags)
        rc = qr_fail(QALLOW_E_ARGUMENT, "%s: its flags cannot be changed", qr_vertex_name(v));
    if (!rc)
        rc = reserve(graph, (uint32_t)o->input_count);
    if (rc)
        return rc;
    uint32_t node = qr_vertex_index(graph, qr_graph_find(graph, o->page));
    made.flags = graph->vertices[node].flags;
    old = graph->vertices[node];
    graph->vertices[node].input_count = 0;
    rc = make_definition(graph, o, node, &made);
    v = &graph->vertices[node];
    v->input_count = old.input_count;
    if (rc) {
        drop_definition(graph, &made);
        return rc;
    }
    unlink_inputs(graph, node);
    int is_same = made.signature == old.signature;
    install(graph, node, &made);
    for (uint32_t i = 0; i < old.input_count; i++)
        drop_source(graph, old.inputs[i].from);
    qr_free(old.inputs);
    qr_free(old.name);
    if (!is_same)
        qr_graph_set_stale(graph, v, QALLOW_WHY_DEFINITION);
    return 0;
}

int qallow_graph_replace(struct qallow_graph *graph, const struct qallow_node_options *options)
{
    struct qallow_node_options o = QALLOW_NODE_OPTIONS_INIT;
    QR_CHECK_ARGUMENT(graph != NULL && options != NULL);
    int rc = check_node(options, &o);
    if (rc || (rc = qr_graph_enter(graph)))
        return rc;
    rc = replace_node(graph, &o);
    qr_graph_leave(graph);
    return rc;
}

static int remove_node(struct qallow_graph *graph, uint64_t page)
{
    struct qr_vertex *v;
    int rc = find_node(graph, page, &v);
    if (rc)
        return rc;
    uint32_t node = qr_vertex_index(graph, v), count = v->input_count;
    struct qr_edge *inputs = v->inputs;
    if (v->flags & QALLOW_NODE_VOLATILE && v->child_count)
        return qr_fail(QALLOW_E_STATE, "%s: other pages depend on it", qr_vertex_name(v));
    if (v->flags & QALLOW_NODE_VOLATILE && v->is_loaded)
        graph->volatile_digest = graph->volatile_digest_before =
            qb_u128_sub(graph->volatile_digest, qr_volatile_term(v->id, v->size, v->sum));
    unlink_inputs(graph, node);
    v->inputs = NULL;
    free_definition(v);
    graph->stale_count -= v->is_stale;
    v->is_stale = v->is_ranged = v->flags = 0;
    graph->nodes--;
    graph->table_is_old = 1;
    graph->is_ordered = 0;
    for (uint32_t i = 0; i < count; i++)
        drop_source(graph, inputs[i].from);
    drop_source(graph, node);
    qr_free(inputs);
    return 0;
}

int qallow_graph_remove(struct qallow_graph *graph, uint64_t page)
{
    QR_CHECK_ARGUMENT(graph != NULL);
    int rc = qr_graph_enter(graph);
    if (rc)
        return rc;
    rc = remove_node(graph, page);
    qr_graph_leave(graph);
    return rc;
}

int qallow_graph_invalidate(struct qallow_graph *graph, uint64_t page)
{
    struct qr_vertex *v;
    QR_CHECK_ARGUMENT(graph != NULL);
    int rc = qr_graph_enter(graph);
    if (rc)
        return rc;
    rc = find_node(graph, page, &v);
    if (!rc)
        qr_graph_set_stale(graph, v, QALLOW_WHY_REQUEST);
    qr_graph_leave(graph);
    return rc;
}

/* ---------------------------------------------------------------- the graph */

void qr_graph_free(struct qallow_graph *graph)
{
    for (uint32_t i = 0; i < graph->count; i++)
        free_vertex(graph, &graph->vertices[i]);
    qr_ranges_finish(&graph->output);
    qr_edits_finish(&graph->edits);
    qr_batch_destroy(graph->batch);
    qr_reader_destroy(graph->reader);
    void *const memory[] = {graph->vertices_memory,
                            graph->table,
                            graph->marks,
                            graph->order,
                            graph->dirty,
                            graph->touched,
                            graph->undo,
                            graph->undo_bytes.bytes,
                            graph->notes,
                            graph->note_bytes.bytes,
                            graph->inputs,
                            graph->scratch,
                            graph->stored,
                            graph->table_bytes.bytes,
                            graph};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        qr_free(memory[i]);
}

int qr_graph_make(struct qallow_store *store, const struct qallow_graph_options *options,
                  struct qallow_graph **graph)
{
    struct qallow_graph *made = qr_calloc(1, sizeof *made);
    *graph = NULL;
    if (!made)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a graph");
    made->store = store;
    made->options = *options;
    made->now = 1; /* no vertex has been touched in it */
    int rc = reserve(made, 1);
    if (rc) {
        qr_graph_free(made);
        return rc;
    }
    made->vertices[made->count++] = (struct qr_vertex){0};
    *graph = made;
    return 0;
}

/* Takes its place in the transactions of the store. */
static int attach(struct qallow_graph *graph)
{
    struct qallow_store *store = graph->store;
    if (store->store->derive)
        return qr_fail(QALLOW_E_STATE, "%s has a graph already", qr_store_path(store->store));
    int rc = graph->options.no_table ? 0 : qr_graph_table_load(graph);
    if (!rc)
        store->store->derive = &graph->derive;
    return rc;
}

int qallow_graph_create(struct qallow_store *store, const struct qallow_graph_options *options,
                        struct qallow_graph **graph)
{
    struct qallow_graph_options o = QALLOW_GRAPH_OPTIONS_INIT;
    QR_CHECK_ARGUMENT(graph != NULL);
    *graph = NULL;
    QR_CHECK_ARGUMENT(store != NULL);
    int rc = options ? qr_api_options(options, &o, sizeof o, sizeof o) : 0;
    if (rc)
        return rc;
    QR_CHECK_ARGUMENT(o.mode <= QALLOW_BATCHED && o.events <= 1 && o.no_table <= 1);
    for (size_t i = 0; i < sizeof o.reserved / sizeof *o.reserved; i++)
        QR_CHECK_ARGUMENT(o.reserved[i] == 0);
    struct qallow_graph *made;
    rc = qr_graph_make(store, &o, &made);
    if (rc)
        return rc;
    made->derive = (struct qr_derive){qr_graph_owns,  qr_graph_note,      qr_graph_run,
                                      qr_graph_ended, qr_graph_fell_back, made};
    if (!(rc = qr_graph_enter(made))) {
        rc = attach(made);
        qr_graph_leave(made);
    }
    if (rc)
        qr_graph_free(made);
    else
        *graph = made;
    return rc;
}

void qallow_graph_destroy(struct qallow_graph *graph)
{
    if (!graph)
        return;
    pthread_mutex_lock(&graph->store->calls);
    pthread_mutex_lock(&graph->store->store->sharing.lock);
    graph->store->store->derive = NULL;
    qr_graph_leave(graph);
    qr_graph_free(graph);
}

int qallow_graph_set_mode(struct qallow_graph *graph, enum qallow_graph_mode mode)
{
    QR_CHECK_ARGUMENT(graph != NULL);
    QR_CHECK_ARGUMENT(mode == QALLOW_IMMEDIATE || mode == QALLOW_BATCHED);
    int rc = qr_graph_enter(graph);
    if (rc)
        return rc;
    graph->options.mode = mode;
    qr_graph_leave(graph);
    return 0;
}

int qallow_graph_update(struct qallow_graph *graph, uint64_t *epoch)
{
    struct qallow_txn *txn;
    QR_CHECK_ARGUMENT(graph != NULL);
    if (qr_graph_in_function)
        return qr_fail(QALLOW_E_STATE, "a page's function must not call the graph");
    int rc = qallow_begin(graph->store, &txn);
    if (rc)
        return rc;
    txn->is_forced = 1;
    return qallow_commit(txn, epoch);
}
