/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dependency graph: cycles, and the topological order.
 *
 * A new edge makes a cycle if its node already leads to its input. Whether it does is searched for
 * from both ends in turns, one vertex at a time, until one side has nothing left: a graph that is
 * built from its sources on has nothing below a new node, one that is built from its results on has
 * nothing above, so both cost one step an edge.
 *
 * The order is by level (the longest way from a source), then by id: it depends on what the graph
 * is and not on how it came about, and so does which of two failures is named. (Volatile pages of a
 * level come last, in the order in which they were added.) It is made anew when something has
 * changed and a wave needs it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/error.h"
#include "runtime/graph.h"

/* One of the two searches: what it has seen, in the order it was seen, and where from. */
struct search {
    uint32_t *seen, *from;
    uint32_t count, next; /* seen[0..next) have been looked at */
    int is_down;
};

struct cycle {
    struct qallow_graph *graph;
    uint32_t target; /* the vertex that gets inputs */
    const struct qr_edge *inputs;
    uint32_t input_count;
    struct search down, up;
};

enum { SEEN_DOWN = 1, SEEN_UP = 2 };

static void see(struct cycle *c, struct search *s, uint32_t vertex, uint32_t from)
{
    uint32_t bit = s->is_down ? SEEN_DOWN : SEEN_UP;
    if (c->graph->marks[vertex] & bit)
        return;
    c->graph->marks[vertex] |= bit;
    s->from[s->count] = from;
    s->seen[s->count++] = vertex;
}

static int is_input(const struct cycle *c, uint32_t vertex)
{
    for (uint32_t i = 0; i < c->input_count; i++)
        if (c->inputs[i].from == vertex)
            return 1;
    return 0;
}

/* Looks at one vertex more. 1: it closes the cycle. */
static int step(struct cycle *c, struct search *s)
{
    uint32_t at = s->next++;
    const struct qr_vertex *v = &c->graph->vertices[s->seen[at]];
    if (s->is_down ? is_input(c, s->seen[at]) : s->seen[at] == c->target)
        return 1;
    for (uint32_t i = 0; i < (s->is_down ? v->child_count : v->input_count); i++)
        see(c, s, s->is_down ? v->children[i] : qr_input(v, i), at);
    return 0;
}

/* Appends " -> page 5 (f)", as far as there is room; a long way is cut. */
static void add_name(char *text, size_t size, const struct qr_vertex *v)
{
    size_t length = strlen(text);
    if (length + 80 < size)
        snprintf(text + length, size - length, "%s%s", length ? " -> " : "", qr_vertex_name(v));
    else if (text[length - 1] != '.')
        snprintf(text + length, size - length, " -> ...");
}

/* The way that the search came, in the direction in which changes go: each page is computed from
 * the one before. */
static int say_cycle(const struct cycle *c, const struct search *s)
{
    char text[900] = "";
    uint32_t count = 0;
    uint32_t *way = s->is_down ? c->up.seen : c->down.seen; /* room for every vertex */
    for (uint32_t at = s->next - 1; at != QR_GRAPH_NONE; at = s->from[at])
        way[count++] = s->seen[at];
    if (!s->is_down)
        for (uint32_t i = 0; i < count; i++)
            add_name(text, sizeof text, &c->graph->vertices[way[i]]);
    else
        for (uint32_t i = count; i > 0; i--)
            add_name(text, sizeof text, &c->graph->vertices[way[i - 1]]);
    add_name(text, sizeof text, &c->graph->vertices[c->target]);
    return qr_fail(QALLOW_E_CYCLE, "%s would be computed from itself: %s",
                   qr_vertex_name(&c->graph->vertices[c->target]), text);
}

int qr_graph_check_cycle(struct qallow_graph *graph, uint32_t vertex, const struct qr_edge *inputs,
                         uint32_t count)
{
    struct cycle c = {.graph = graph, .target = vertex, .inputs = inputs, .input_count = count};
    size_t most = graph->count;
    uint32_t *memory = qr_malloc(4 * most * sizeof *memory);
    int rc = 0;
    if (!memory)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory to look for a cycle");
    c.down = (struct search){.seen = memory, .from = memory + most, .is_down = 1};
    c.up = (struct search){.seen = memory + 2 * most, .from = memory + 3 * most};
    see(&c, &c.down, vertex, QR_GRAPH_NONE);
    for (uint32_t i = 0; i < count; i++)
        see(&c, &c.up, inputs[i].from, QR_GRAPH_NONE);
    while (!rc && c.down.next < c.down.count && c.up.next < c.up.count) {
        if (step(&c, &c.down))
            rc = say_cycle(&c, &c.down);
        else if (step(&c, &c.up))
            rc = say_cycle(&c, &c.up);
    }
    for (uint32_t i = 0; i < c.down.count && !rc; i++)
        graph->marks[c.down.seen[i]] = 0;
    for (uint32_t i = 0; i < c.up.count && !rc; i++)
        graph->marks[c.up.seen[i]] = 0;
    if (rc) /* what one side has seen has been written over */
        memset(graph->marks, 0, most * sizeof *graph->marks);
    qr_free(memory);
    return rc;
}

/* ---------------------------------------------------------------- the order */

static int by_level_and_id(const void *x, const void *y, void *vertices)
{
    const struct qr_vertex *a = (struct qr_vertex *)vertices + *(const uint32_t *)x;
    const struct qr_vertex *b = (struct qr_vertex *)vertices + *(const uint32_t *)y;
    if (a->level != b->level)
        return a->level < b->level ? -1 : 1;
    if (a->id & b->id & QR_GRAPH_VOLATILE) /* as they lie in memory: their ids are hashes */
        return a < b ? -1 : a > b;
    return a->id < b->id ? -1 : a->id > b->id;
}

/* Levels, by taking vertices whose inputs have all been taken. `marks` counts the others. */
static void set_levels(struct qallow_graph *graph)
{
    uint32_t taken = 0, known = 0;
    for (uint32_t i = 1; i < graph->count; i++) {
        struct qr_vertex *v = &graph->vertices[i];
        v->level = 0;
        graph->marks[i] = v->input_count;
        if (v->id && !v->input_count)
            graph->order[known++] = i;
    }
    for (; taken < known; taken++) {
        const struct qr_vertex *v = &graph->vertices[graph->order[taken]];
        for (uint32_t i = 0; i < v->child_count; i++) {
            struct qr_vertex *child = &graph->vertices[v->children[i]];
            if (child->level <= v->level)
                child->level = v->level + 1;
            if (--graph->marks[v->children[i]] == 0)
                graph->order[known++] = v->children[i];
        }
    }
    graph->order_count = known;
}

static int reserve(struct qallow_graph *graph)
{
    uint32_t words = graph->capacity / 64 + 1;
    if (graph->order_capacity >= graph->capacity)
        return 0;
    uint32_t *order = qr_realloc(graph->order, graph->capacity * sizeof *order);
    if (order)
        graph->order = order;
    uint64_t *dirty = order ? qr_calloc(words, sizeof *dirty) : NULL;
    if (!dirty)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the order of %u pages", graph->count);
    qr_free(graph->dirty);
    graph->dirty = dirty;
    graph->order_capacity = graph->capacity;
    return 0;
}

int qr_graph_order(struct qallow_graph *graph)
{
    int rc = graph->is_ordered ? 0 : reserve(graph);
    if (rc || graph->is_ordered)
        return rc;
    set_levels(graph);
    qr_assert(graph->order_count + graph->free_count + 1 == graph->count);
    if (graph->order_count)
        qsort_r(graph->order, graph->order_count, sizeof *graph->order, by_level_and_id,
                graph->vertices);
    for (uint32_t i = 0; i < graph->order_count; i++) {
        struct qr_vertex *v = &graph->vertices[graph->order[i]];
        graph->marks[graph->order[i]] = 0;
        v->rank = i;
    }
    graph->is_ordered = 1;
    return 0;
}
