/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Derived pages: functions of the program as nodes of a dependency graph (runtime/graph.h).
 *
 * The graph has its own copy of the pages that it knows, finds out what changed of them, and says
 * which range of which page is to be computed. That is a call here: a second machine, the runner,
 * with the same code but a stack of its own, whose table of pages has the range as page 0 and what
 * the range depends on, and nothing else, as pages 1 and up. So a function cannot depend on more
 * than was declared, and the same code does for a whole page and for a part of it:
 *
 *     elementwise, blockwise   the elements, or whole blocks, at the same place; fewer at its end
 *     window                   before + n + after elements; those beyond the page's ends are zeros
 *     whole                    all of it
 *
 * r0 is where in the page the range begins, r1 how many elements the page has, in elements.
 *
 * Then what changed is copied to the machine's pages and marked as written to. Into the log it goes
 * from the graph, which knows what has changed: as deltas that join the tick's transaction. Writing
 * the pages like those of the program, to be compared again, takes 30 times as long.
 */
#include <stdio.h>
#include <string.h>

#include "runtime/error.h"
#include "runtime/graph.h"
#include "runtime/os.h"
#include "vm/machine.h"

struct node {
    struct qv_nodes *nodes;
    uint32_t page;
    uint64_t unit; /* bytes of it for a unit of its parents; 0: all are read whole */
    const struct qv_parent *first; /* parent that is not read whole: says how long the page is */
    int is_as_long;                /* as that one, to the byte; otherwise it has whole units */
};

struct qv_nodes {
    struct qv_machine *machine;
    struct qv_machine runner;
    struct qallow_graph *graph;
    struct node *items; /* for each page of the program; page 0 and none: no node */
    uint8_t *is_source; /* for each page: not derived, and some node reads it */
    uint8_t *is_known;  /* for each source: the graph has its content */
    int has_unknown;    /* there may be one that it has not */
    uint8_t *padded;    /* windows that reach beyond their page's ends */
    size_t padded_used; /* in this call */
    char failure[700];  /* of the function that failed */
};

static const struct qv_page *page_of(const struct qv_nodes *nodes, uint32_t page)
{
    return &nodes->machine->program->pages[page];
}
static unsigned shift_of(const struct qv_nodes *nodes, uint32_t page)
{
    return qb_type_shift(page_of(nodes, page)->type);
}

/* --- a call --- */

/* The bytes of a page from `from` to `to`, which may lie beyond its ends: zeros there. */
static const uint8_t *pad(struct qv_nodes *nodes, const struct qallow_input *input, int64_t from,
                          int64_t to)
{
    int64_t size = (int64_t)input->size;
    int64_t first = from < 0 ? 0 : from < size ? from : size, last = to < size ? to : size;
    uint8_t *bytes = nodes->padded + nodes->padded_used;

    if (from >= 0 && to <= size)
        return input->bytes + from;
    memset(bytes, 0, (size_t)(to - from));
    if (last > first)
        memcpy(bytes + (first - from), input->bytes + first, (size_t)(last - first));
    nodes->padded_used += ((size_t)(to - from) + 63) & ~(size_t)63;
    return bytes;
}

/* What a function sees of a parent. */
static void show_parent(struct qv_nodes *nodes, const struct node *node,
                        const struct qallow_call *call, uint32_t i)
{
    const struct qv_parent *parent = &page_of(nodes, node->page)->parents[i];
    const struct qallow_input *input = &call->inputs[i];
    struct qv_memory *memory = &nodes->runner.pages[1 + i];
    unsigned shift = shift_of(nodes, parent->page);
    const uint8_t *bytes = input->bytes;
    uint64_t size = input->size;

    if (parent->unit) {
        uint64_t units = call->length / node->unit + (call->length % node->unit != 0);
        uint64_t from = call->offset / node->unit * (parent->unit << shift);
        uint64_t to = from + units * (parent->unit << shift);
        if (parent->access == QALLOW_WINDOW) {
            uint64_t before = parent->before << shift, after = parent->after << shift;
            bytes = pad(nodes, input, (int64_t)(from - before), (int64_t)(to + after));
            size = to - from + before + after;
        } else {
            from = from < size ? from : size;
            bytes = size ? bytes + from : bytes;
            size = (to < size ? to : size) - from;
        }
    }
    memory->bytes = (uint8_t *)(uintptr_t)bytes; /* no instruction writes to it */
    memory->size = size;
    memory->count = size >> shift;
    memory->name = page_of(nodes, parent->page)->name;
}

/* Elements of the whole page. */
static uint64_t count_of(const struct qv_nodes *nodes, const struct node *node,
                         const struct qallow_call *call)
{
    const struct qv_page *page = page_of(nodes, node->page);

    if (!node->unit)
        return page->count;
    uint64_t unit = node->first->unit << shift_of(nodes, node->first->page);
    uint64_t size = call->inputs[node->first - page->parents].size;
    if (!node->is_as_long)
        size = (size / unit + (size % unit != 0)) * node->unit;
    return size >> qb_type_shift(page->type);
}

/* Who watches the machine sees this, too, and cannot stop it. */
static int pass_on(void *context, struct qv_machine *runner, uint32_t what, uint32_t which)
{
    const struct qv_watch *watch = &((struct qv_nodes *)context)->machine->watch;

    if (watch->what & what)
        watch->tell(watch->context, runner, what, which);
    return 0;
}

static void enter(struct qv_nodes *nodes, const struct node *node, const struct qallow_call *call)
{
    const struct qv_page *page = page_of(nodes, node->page);
    struct qv_machine *r = &nodes->runner;
    const struct qv_entry *entry = &r->entries[page->function];
    uint64_t arguments[2] = {call->offset >> qb_type_shift(page->type),
                             count_of(nodes, node, call)};

    r->pages[0].bytes = call->output;
    r->pages[0].size = call->length;
    r->pages[0].count = call->length >> qb_type_shift(page->type);
    r->pages[0].name = page->name;
    nodes->padded_used = 0;
    for (uint32_t i = 0; i < call->input_count; i++)
        show_parent(nodes, node, call, i);
    qv_tick_begin(r);
    r->pc = entry->code;
    r->base = r->depth = 0;
    memset(r->stack, 0, entry->registers * sizeof *r->stack);
    memcpy(r->stack, arguments, entry->arguments * sizeof *arguments);
    if (r->watch.counts)
        r->watch.counts[page->function].called++;
}

static int failed(struct qv_nodes *nodes, const struct node *node, enum qv_stop stop)
{
    char text[600];

    if (stop == QV_INTERRUPTED) {
        snprintf(nodes->failure, sizeof nodes->failure, "stopped while page %s was computed",
                 page_of(nodes, node->page)->name);
        return QALLOW_E_INTERRUPTED;
    }
    qv_describe_stop(&nodes->runner, stop, text, sizeof text);
    snprintf(nodes->failure, sizeof nodes->failure, "page %s: %s", page_of(nodes, node->page)->name,
             text);
    return QALLOW_E_FUNCTION;
}

static int compute(void *context, struct qallow_call *call)
{
    const struct node *node = context;
    struct qv_nodes *nodes = node->nodes;
    struct qv_machine *r = &nodes->runner;
    uint64_t bytes = qv_page_bytes(page_of(nodes, node->page));
    uint32_t words = r->entries[page_of(nodes, node->page)->function].words;

    if (!node->unit && call->length != bytes) {
        int rc = qallow_call_resize(call, bytes);
        if (rc < 0)
            return rc;
    }
    enter(nodes, node, call);
    if (r->fuel_reserve < words)
        return failed(nodes, node, QV_OUT_OF_FUEL);
    r->fuel_reserve -= words;
    pass_on(nodes, r, QALLOW_VM_ON_NODE, node->page);
    enum qv_stop stop = qv_run(r);
    r->tick = nodes->machine->tick - 1; /* that was none of its own */
    if (stop == QV_HALTED)
        pass_on(nodes, r, QALLOW_VM_ON_NODE_DONE, node->page);
    return stop == QV_HALTED ? 0 : failed(nodes, node, stop);
}

/* --- making the graph --- */

static int add_node(struct qv_nodes *nodes, uint32_t number)
{
    const struct qv_page *page = page_of(nodes, number);
    struct qallow_dependency inputs[QV_MAX_PARENTS];
    struct qallow_node_options options = QALLOW_NODE_OPTIONS_INIT;
    struct node *node = &nodes->items[number];

    *node = (struct node){.nodes = nodes, .page = number};
    for (size_t i = 0; i < page->parent_count; i++) {
        const struct qv_parent *parent = &page->parents[i];
        uint64_t size = (uint64_t)1 << shift_of(nodes, parent->page);
        inputs[i] = (struct qallow_dependency){.page = parent->page + 1,
                                               .access = parent->access,
                                               .unit = parent->unit * size,
                                               .before = parent->before,
                                               .after = parent->after};
        if (parent->unit && !node->first)
            node->first = parent;
        nodes->is_source[parent->page] = !page_of(nodes, parent->page)->is_derived;
    }
    node->is_as_long =
        node->first && qv_page_bytes(page) == qv_page_bytes(page_of(nodes, node->first->page));
    if (node->first)
        node->unit = qv_node_unit(nodes->machine->program, page) << qb_type_shift(page->type);
    options.page = number + 1;
    options.function = compute;
    options.context = node;
    options.name = nodes->machine->program->functions[page->function].name;
    options.inputs = inputs;
    options.input_count = page->parent_count;
    options.unit = node->unit;
    options.flags = node->first && !node->is_as_long ? QALLOW_NODE_WHOLE_UNITS : 0;
    if (nodes->machine->program->functions[page->function].arguments > 1)
        options.flags |= QALLOW_NODE_USES_LENGTH; /* r1 is given to it */
    return qallow_graph_add(nodes->graph, &options, NULL);
}

static int make_graph(struct qv_nodes *nodes)
{
    int rc = qr_graph_create_loose(&nodes->graph);

    for (uint32_t i = 0; rc == 0 && i < nodes->machine->program->page_count; i++)
        if (page_of(nodes, i)->is_derived)
            rc = add_node(nodes, i);
    return rc;
}

/* --- making the runner --- */

/* Pieces of one block, as machine.c does it; with no block yet they are only counted. */
static void *take(uint8_t *block, size_t *used, size_t size)
{
    void *piece = block ? block + *used : NULL;

    *used += (size + 63) & ~(size_t)63;
    return piece;
}

static size_t lay_out(struct qv_nodes *nodes, uint8_t *block)
{
    const struct qv_program *program = nodes->machine->program;
    uint64_t blocks = 0, padded = 0;
    size_t parents = 0, used = 0;

    for (size_t i = 0; i < program->page_count; i++) {
        const struct qv_page *page = &program->pages[i];
        if (!page->is_derived)
            continue;
        uint64_t windows = qv_node_windows(program, page);
        padded = windows > padded ? windows : padded;
        blocks = qv_page_bytes(page) > blocks ? qv_page_bytes(page) : blocks;
        parents = page->parent_count > parents ? page->parent_count : parents;
    }
    nodes->runner.stack = take(block, &used, (size_t)program->stack * sizeof(uint64_t));
    nodes->runner.frames = take(block, &used, (size_t)program->depth * sizeof(struct qv_frame));
    nodes->runner.pages = take(block, &used, (1 + parents) * sizeof(struct qv_memory));
    nodes->runner.touched = take(block, &used, 1 + parents);
    uint8_t *dirty = take(block, &used, blocks / QV_BLOCK + 1);
    nodes->padded = take(block, &used, padded);
    if (block)
        nodes->runner.pages[0].dirty = dirty;
    return used;
}

static int make_runner(struct qv_nodes *nodes)
{
    struct qv_machine *r = &nodes->runner;

    *r = *nodes->machine;
    r->emits = NULL; /* no function of pages emits */
    r->memory_size = lay_out(nodes, NULL);
    r->memory = qr_map(r->memory_size, 4096);
    if (!r->memory)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the functions of pages: %zu bytes",
                       r->memory_size);
    lay_out(nodes, r->memory);
    return 0;
}

int qv_nodes_create(struct qv_machine *machine, struct qv_nodes **nodes)
{
    const struct qv_program *program = machine->program;
    size_t count = 0;

    *nodes = NULL;
    for (size_t i = 0; i < program->page_count; i++)
        count += program->pages[i].is_derived != 0;
    if (count == 0)
        return 0;
    struct qv_nodes *made = qr_calloc(1, sizeof *made);
    if (!made)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for derived pages");
    made->machine = machine;
    made->has_unknown = 1;
    made->items = qr_calloc(program->page_count, sizeof *made->items);
    made->is_source = qr_calloc(program->page_count, 1);
    made->is_known = qr_calloc(program->page_count, 1);
    int rc = made->items && made->is_source && made->is_known
                 ? make_runner(made)
                 : qr_fail(QALLOW_E_NO_MEMORY, "no memory for derived pages");
    if (rc == 0)
        rc = make_graph(made);
    if (rc < 0) {
        qv_nodes_destroy(made);
        return rc;
    }
    *nodes = made;
    return 0;
}

void qv_nodes_destroy(struct qv_nodes *nodes)
{
    if (!nodes)
        return;
    qr_graph_destroy_loose(nodes->graph);
    if (nodes->runner.memory)
        qr_unmap(nodes->runner.memory, nodes->runner.memory_size);
    qr_free(nodes->items);
    qr_free(nodes->is_source);
    qr_free(nodes->is_known);
    qr_free(nodes);
}

/* --- bringing them up to date --- */

/* Tells the graph what a source has in its blocks that may have changed. */
static int set_source(struct qv_nodes *nodes, uint32_t page)
{
    const struct qv_memory *memory = &nodes->machine->pages[page];
    uint64_t blocks = (memory->size + QV_BLOCK - 1) / QV_BLOCK;
    int rc = 0;

    if (!nodes->is_known[page]) {
        nodes->is_known[page] = 1;
        return qr_graph_set(nodes->graph, page + 1, memory->size, 0, memory->bytes, memory->size);
    }
    if (memory->dirty[0] && !qv_page_is_fixed(page_of(nodes, page)))
        rc = qr_graph_set(nodes->graph, page + 1, memory->size, 0, NULL, 0);
    for (uint64_t from = 0; rc == 0 && from < blocks;) {
        const uint8_t *dirty = memchr(memory->dirty + from, 1, blocks - from);
        if (!dirty)
            break;
        from = (uint64_t)(dirty - memory->dirty);
        uint64_t to = from;
        while (to < blocks && memory->dirty[to])
            to++;
        uint64_t end = to * QV_BLOCK < memory->size ? to * QV_BLOCK : memory->size;
        rc = qr_graph_set(nodes->graph, page + 1, memory->size, from * QV_BLOCK,
                          memory->bytes + from * QV_BLOCK, end - from * QV_BLOCK);
        from = to;
    }
    return rc;
}

/* What the runner has from the machine, which may have got other threads or somebody who stops it.
 */
static void prepare(struct qv_nodes *nodes, uint64_t fuel)
{
    const struct qv_machine *m = nodes->machine;
    struct qv_machine *r = &nodes->runner;

    r->fuel_limit = fuel;
    r->fuel_slice = m->fuel_slice;
    r->interrupted = m->interrupted;
    r->interrupted_context = m->interrupted_context;
    r->tick = m->tick - 1; /* the one that is over */
    r->watch = m->watch;
    r->watch.tell = pass_on;
    r->watch.context = nodes;
    r->pool = m->pool;
    r->parallel_from = m->parallel_from;
    r->part = m->part;
    nodes->failure[0] = '\0';
}

static int set_unknown(struct qv_nodes *nodes)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < nodes->machine->program->page_count; i++)
        if (nodes->is_source[i] && !nodes->is_known[i])
            rc = set_source(nodes, i);
    nodes->has_unknown = rc != 0;
    return rc;
}

/* Each call has this much fuel. */
static int propagate(struct qv_nodes *nodes, uint64_t epoch, uint64_t fuel, int is_logged,
                     int (*tell)(void *context, const struct qr_derived *derived))
{
    const struct qv_machine *m = nodes->machine;
    int rc = 0;

    prepare(nodes, fuel);
    if (nodes->has_unknown)
        rc = set_unknown(nodes);
    for (size_t i = qv_next_touched(m, 0); rc == 0 && i < m->program->page_count;
         i = qv_next_touched(m, i + 1))
        if (nodes->is_source[i])
            rc = set_source(nodes, (uint32_t)i);
    if (rc == 0)
        rc = qr_graph_propagate(nodes->graph, epoch, is_logged, tell, nodes);
    if (rc < 0 && nodes->failure[0])
        return qr_fail(rc, "%s", nodes->failure);
    return rc;
}

static int copy_changed(void *context, const struct qr_derived *derived)
{
    struct qv_nodes *nodes = context;
    uint32_t page = (uint32_t)(derived->page - 1);
    struct qv_memory *memory = &nodes->machine->pages[page];

    qr_assert(derived->size <= qv_page_bytes(page_of(nodes, page)));
    if (memory->size != derived->size) {
        memory->size = derived->size;
        memory->count = derived->size >> shift_of(nodes, page);
        qv_touch(nodes->machine, page, 0, 1);
    }
    for (uint32_t i = 0; i < derived->count; i++) {
        uint64_t from = derived->ranges[i].offset, to = derived->ranges[i].end;
        to = to < derived->size ? to : derived->size;
        if (from >= to)
            continue;
        memcpy(memory->bytes + from, derived->bytes + from, to - from);
        qv_touch(nodes->machine, page, from, to);
    }
    return 0;
}

int qv_nodes_update(struct qv_nodes *nodes, uint64_t epoch, int is_logged)
{
    return nodes ? propagate(nodes, epoch, nodes->machine->node_fuel, is_logged, copy_changed) : 0;
}

void qv_nodes_attach(struct qv_nodes *nodes, struct qallow_store *store, const uint64_t *page_ids)
{
    if (!nodes || nodes->graph->log)
        return;
    qr_graph_attach(nodes->graph, store);
    for (uint32_t i = 0; i < nodes->machine->program->page_count; i++)
        if (page_of(nodes, i)->is_derived)
            qr_graph_log_page(nodes->graph, i + 1, page_ids[i]);
}

void qv_nodes_detach(struct qv_nodes *nodes)
{
    if (nodes)
        qr_graph_detach(nodes->graph);
}

static int tell_nobody(void *context, const struct qr_derived *derived)
{
    (void)context;
    (void)derived;
    return 0;
}

int qv_nodes_verify(struct qv_nodes *nodes, uint64_t epoch)
{
    if (!nodes)
        return 0;
    const struct qv_program *program = nodes->machine->program;
    memset(nodes->is_known, 0, program->page_count);
    nodes->has_unknown = 1;
    int rc = propagate(nodes, epoch, QV_MAX_FUEL, 0, tell_nobody);
    for (uint32_t i = 0; rc == 0 && i < program->page_count; i++) {
        const struct qv_memory *memory = &nodes->machine->pages[i];
        const uint8_t *bytes;
        uint64_t size;
        if (!program->pages[i].is_derived)
            continue;
        qr_graph_look(nodes->graph, i + 1, &bytes, &size);
        if (size != memory->size || (size && memcmp(bytes, memory->bytes, size) != 0))
            rc = qr_fail(QALLOW_E_SERIALIZATION, "page data/%s is not what %s makes of its parents",
                         program->pages[i].name,
                         program->functions[program->pages[i].function].name);
    }
    return rc;
}

int qv_nodes_adopt(struct qv_nodes *nodes, const uint8_t *is_stale)
{
    int rc = 0;

    if (!nodes)
        return 0;
    for (uint32_t i = 0; rc == 0 && i < nodes->machine->program->page_count; i++) {
        const struct qv_memory *memory = &nodes->machine->pages[i];
        if (nodes->is_source[i] || page_of(nodes, i)->is_derived)
            rc = qr_graph_adopt(nodes->graph, i + 1, memory->bytes, memory->size, is_stale[i]);
        nodes->is_known[i] = nodes->is_source[i];
    }
    return rc;
}

void qv_nodes_computed(const struct qv_nodes *nodes, struct qv_computed *computed)
{
    *computed = (struct qv_computed){0, 0, 0};
    if (nodes)
        *computed = (struct qv_computed){nodes->graph->computed, nodes->graph->equal,
                                         nodes->graph->computed_bytes};
}

struct qv_machine *qv_nodes_machine(struct qv_nodes *nodes) { return &nodes->runner; }
struct qallow_graph *qv_nodes_graph(struct qv_nodes *nodes) { return nodes->graph; }
