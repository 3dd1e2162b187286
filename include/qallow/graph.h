/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dependency graph: pages whose content is computed from other pages.
 *
 * A *node* is a page with a function and inputs, which are pages, derived or not. When a commit
 * changes an input, the functions of all nodes that depend on it run before the epoch is made, in
 * topological order and each at most once, and what they computed lands in the same epoch. A node
 * whose result has the same bytes as before stops the wave there; where the function says how
 * output depends on input (enum qallow_access), only the ranges that can have changed are computed.
 *
 *     qallow_graph_create(store, NULL, &graph);
 *     struct qallow_dependency input = {.page = prices, .access = QALLOW_ELEMENTWISE, .unit = 8};
 *     struct qallow_node_options node = QALLOW_NODE_OPTIONS_INIT;
 *     node.page = gross;
 *     node.function = add_tax;
 *     node.name = "add_tax";
 *     node.inputs = &input;
 *     node.input_count = 1;
 *     qallow_graph_add(graph, &node, NULL);
 *     ... every qallow_commit that changes `prices` now changes `gross`, too.
 *
 * A derived page can be read from views and is not written, or read, by transactions (STATE). It is
 * in the log like all others, so its history can be read without the function.
 * Or it is *volatile*: only in memory, with a digest in the log, against which
 * qallow_graph_check() compares what the functions give.
 *
 * What a function computes must follow from its inputs' bytes alone: no clock, no random numbers,
 * no memory of earlier calls. docs/graph.md has the rules and what they buy.
 *
 * Conventions are those of qallow/store.h. Threads: a graph may be used from any number of threads;
 * functions run in the thread that commits, one at a time, and may call nothing of this library
 * but what is said here. Since: 0.1.0.
 */
#ifndef QALLOW_GRAPH_H
#define QALLOW_GRAPH_H

#include "qallow/store.h"

#ifdef __cplusplus
extern "C" {
#endif

struct qallow_graph;

/* --- functions --- */

struct qallow_input {
    uint64_t page;
    const uint8_t *bytes; /* all of it, as it is in this epoch; NULL if it is empty */
    uint64_t size;
};

/* One call of a function: compute bytes [offset, offset + length) of the page. */
struct qallow_call {
    uint32_t size; /* of this struct */
    uint32_t input_count;
    uint64_t page;
    uint64_t epoch;                    /* that is being made; 0 in qallow_graph_check() */
    const struct qallow_input *inputs; /* in the order in which they were given */
    uint8_t *output;                   /* `length` bytes, zeros; here the result goes */
    uint64_t offset, length;
    uint64_t fuel; /* of the node; the function takes off what it used */
    void *internal;
};

/* Returns 0, or fails: a QALLOW_E_*, or a positive number of its own (the commit then fails with
 * QALLOW_E_FUNCTION). It may be called several times in an epoch, for different ranges. */
typedef int (*qallow_function)(void *context, struct qallow_call *call);

/* For the function of a node whose inputs are all QALLOW_WHOLE: the page shall have `size` bytes.
 * call->output and call->length are new; the output is zeros again. NO_MEMORY, LIMIT. */
QALLOW_API int qallow_call_resize(struct qallow_call *call, uint64_t size);

/* For a function that fails: what the commit's detail says besides the page, copied. Returns
 * `result`. */
QALLOW_API int qallow_call_fail(struct qallow_call *call, int result, const char *text);

/* A function: the output is the first input. Needs no context and works with every access. */
QALLOW_API int qallow_passthrough(void *context, struct qallow_call *call);

/* How output depends on an input. Units are counted from the beginning of the pages. */
enum qallow_access {
    QALLOW_WHOLE = 0,       /* any byte on any byte */
    QALLOW_ELEMENTWISE = 1, /* element i on element i */
    QALLOW_BLOCKWISE = 2,   /* block i on block i; the last block may be shorter */
    QALLOW_WINDOW = 3,      /* element i on elements i - before to i + after */
};

struct qallow_dependency {
    uint64_t page;
    uint32_t access; /* enum qallow_access */
    uint32_t reserved32;
    uint64_t unit;          /* bytes of an element or a block; not 0 unless QALLOW_WHOLE */
    uint64_t before, after; /* QALLOW_WINDOW */
};

/* --- the graph --- */

enum qallow_graph_mode {
    QALLOW_IMMEDIATE = 0, /* each commit brings the nodes up to date */
    QALLOW_BATCHED = 1,   /* changes gather until qallow_graph_update() */
};

struct qallow_graph_options {
    uint32_t size;
    uint32_t mode;       /* enum qallow_graph_mode */
    uint64_t max_memory; /* bytes of inputs and derived pages in memory; 0: no limit */
    uint32_t events;     /* 1: each computation is an event (qallow/event.h) */
    uint32_t no_table;   /* 1: nothing about the graph itself goes into the log: after opening it
                            again everything is computed anew, and volatile pages have no digest */
    uint64_t reserved[4];
};
#define QALLOW_GRAPH_OPTIONS_INIT                                                                  \
    {                                                                                              \
        sizeof(struct qallow_graph_options), 0, 0, 0, 0, { 0 }                                     \
    }

/* The graph of a store: at most one at a time (STATE). `options` may be NULL. It may be made for a
 * store that is not writable, to check what is there. *graph: freed by qallow_graph_destroy, before
 * the store is closed. */
QALLOW_API int qallow_graph_create(struct qallow_store *store,
                                   const struct qallow_graph_options *options,
                                   struct qallow_graph **graph);
/* The pages stay what they are. No transaction may be committing. NULL is legal. */
QALLOW_API void qallow_graph_destroy(struct qallow_graph *graph);
QALLOW_API int qallow_graph_set_mode(struct qallow_graph *graph, enum qallow_graph_mode mode);

enum qallow_node_flags {
    QALLOW_NODE_VOLATILE = 1, /* the page is in memory only */
    QALLOW_NODE_ALWAYS = 2,   /* what depends on it is computed whenever it was, also if its bytes
                                 are the same: for signals, and for what always changes */
    QALLOW_NODE_WHOLE_UNITS = 4, /* a unit of input that has only begun gives a whole one of output,
                                    also if both have the same bytes: for sums of blocks */
    QALLOW_NODE_USES_LENGTH = 8, /* the function looks at how long the page is, so all of it is
                                    computed when that has changed */
};

struct qallow_node_options {
    uint32_t size;
    uint32_t flags;            /* enum qallow_node_flags */
    uint64_t page;             /* gets the result. It must exist when the node is first computed.
                                  Volatile: 0, it is made by the graph */
    const char *volatile_name; /* volatile: 1 to 255 bytes, unique in the graph */
    qallow_function function;
    void *context;    /* for the function; must live as long as the node */
    const char *name; /* of the function, for messages, at most 255 bytes; NULL: none */
    uint64_t version; /* of the function: with another name or version than before, what it
                         has computed is out of date */
    const struct qallow_dependency *inputs; /* at most 65,535; each page once */
    uint64_t input_count;
    uint64_t unit; /* bytes of output for one unit of input, if some input is not
                      QALLOW_WHOLE; 0: as many as of the first such input. The page is
                      as long as that input has units, also begun ones; if both units are
                      the same, as long as that input, but for QALLOW_NODE_WHOLE_UNITS. */
    uint64_t fuel; /* for each call; 0: UINT64_MAX */
    uint64_t reserved[4];
};
#define QALLOW_NODE_OPTIONS_INIT                                                                   \
    {                                                                                              \
        sizeof(struct qallow_node_options), 0, 0, NULL, NULL, NULL, NULL, 0, NULL, 0, 0, 0, { 0 }  \
    }

/* Adds a node; *page (may be NULL) is its page. It is computed by the next commit (or
 * qallow_graph_update), unless the log says that it is up to date: computed by a function of this
 * name and version from the same inputs, which have not changed since.
 * CYCLE: the page would depend on itself; the detail names the path. PAGE_EXISTS: it is a node
 * already. BUSY: a transaction has written or read the page, and is open. STATE: called by a
 * function. */
QALLOW_API int qallow_graph_add(struct qallow_graph *graph,
                                const struct qallow_node_options *options, uint64_t *page);
/* Gives a node another function, version, context or other inputs; its page (options->page, also of
 * a volatile one) and flags stay. It is computed by the next commit if any of these but the context
 * differs. PAGE_NOT_FOUND: it is no node; otherwise as above, and then it is as before. */
QALLOW_API int qallow_graph_replace(struct qallow_graph *graph,
                                    const struct qallow_node_options *options);
/* The page is no longer computed; what depends on it still does. A volatile page vanishes.
 * PAGE_NOT_FOUND: it is no node. STATE: it is volatile and others depend on it. */
QALLOW_API int qallow_graph_remove(struct qallow_graph *graph, uint64_t page);
/* The next commit computes this node whatever has changed. PAGE_NOT_FOUND. */
QALLOW_API int qallow_graph_invalidate(struct qallow_graph *graph, uint64_t page);

/* Makes an epoch in which everything is up to date, if something is not; *epoch (may be NULL) is
 * the newest. STATE: the store is not writable. Otherwise as
 * qallow_commit. */
QALLOW_API int qallow_graph_update(struct qallow_graph *graph, uint64_t *epoch);
/* Reads [offset, offset + length) of a page of the graph, volatile or not, as of the last commit.
 * PAGE_NOT_FOUND: no node has or uses it. STATE: it has not been computed yet. LIMIT, and for
 * pages in the log as qallow_page_read. */
QALLOW_API int qallow_graph_read(struct qallow_graph *graph, uint64_t page, uint64_t offset,
                                 void *buffer, size_t length);
/* Computes every node anew from what `view` has of the pages that are not derived, and compares:
 * with the derived pages of the view, and the volatile ones with the digest in it. The graph must
 * be that of the view's epoch. DIFFERS: the detail names the first page in topological order.
 * Functions' failures, PAGE_NOT_FOUND, DAMAGED, IO. */
QALLOW_API int qallow_graph_check(struct qallow_graph *graph, struct qallow_view *view);

/* --- looking at it --- */

struct qallow_node {
    uint32_t size; /* of this struct */
    uint32_t flags;
    uint64_t page;
    uint32_t is_source; /* it has no function */
    uint32_t is_stale;  /* the next commit computes it whatever changes */
    uint32_t level;     /* 0 without inputs, else one more than the highest of its inputs */
    uint32_t reserved32;
    uint64_t inputs, dependents;
    uint64_t bytes;           /* in memory */
    uint64_t computed, equal; /* how often it was computed, and gave the same bytes */
    uint64_t computed_bytes;  /* of output, all in all */
    const char *name;         /* of the function; valid until the node is replaced or removed */
    uint64_t reserved[4];
};
#define QALLOW_NODE_INIT                                                                           \
    {                                                                                              \
        sizeof(struct qallow_node), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, { 0 }                \
    }
/* PAGE_NOT_FOUND: no node has or uses the page. */
QALLOW_API int qallow_graph_get(struct qallow_graph *graph, uint64_t page,
                                struct qallow_node *node);

enum qallow_direction {
    QALLOW_DOWN = 0, /* what depends on it */
    QALLOW_UP = 1,   /* what it depends on */
};
/* Calls `visit` for each page that `page` leads to, itself included, or for all pages of the graph
 * if `page` is 0: in topological order, upwards in the reverse one. Pages of one level come by
 * ascending id, volatile ones behind them in the order in which they were added. A visit that
 * returns non-zero ends it, and that is the result. `visit` must not change the graph.
 * PAGE_NOT_FOUND. */
QALLOW_API int qallow_graph_walk(struct qallow_graph *graph, uint64_t page,
                                 enum qallow_direction direction,
                                 int (*visit)(void *context, const struct qallow_node *node),
                                 void *context);
/* The pages that a node reads, in the order they were given (UP), or the nodes that read a page, by
 * ascending id (DOWN): up to `capacity` of them; *count is how many there are. PAGE_NOT_FOUND. */
QALLOW_API int qallow_graph_neighbours(struct qallow_graph *graph, uint64_t page,
                                       enum qallow_direction direction, uint64_t *pages,
                                       size_t capacity, size_t *count);

struct qallow_graph_stats {
    uint32_t size;
    uint32_t depth;          /* the highest level */
    uint64_t nodes, sources; /* pages that are derived, pages that are not */
    uint64_t edges;
    uint64_t stale;  /* nodes that the next commit computes whatever changes */
    uint64_t memory; /* bytes of content */
    uint64_t waves;  /* commits that computed something */
    uint64_t computed, equal, computed_bytes; /* of all nodes */
    uint64_t volatile_digest[2];              /* low, high */
    uint64_t reserved[8];
};
#define QALLOW_GRAPH_STATS_INIT                                                                    \
    {                                                                                              \
        sizeof(struct qallow_graph_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {0, 0}, { 0 }             \
    }
QALLOW_API int qallow_graph_stats(struct qallow_graph *graph, struct qallow_graph_stats *stats);

enum qallow_why {
    QALLOW_WHY_SOURCE = 0,     /* not computed: a commit changed it */
    QALLOW_WHY_INPUT = 1,      /* `cause` changed */
    QALLOW_WHY_DEFINITION = 2, /* the node was new, or its function or inputs were */
    QALLOW_WHY_REQUEST = 3,    /* qallow_graph_invalidate() */
};

/* Why a page is as it is. */
struct qallow_reason {
    uint32_t size; /* of this struct */
    uint32_t why;  /* enum qallow_why */
    uint64_t page;
    uint64_t epoch; /* in which it was computed last, or changed (SOURCE); 0: not since the graph
                       was made */
    uint64_t cause; /* the first of its inputs that had changed; 0: none */
    uint64_t computed_bytes; /* of output */
    uint64_t offset, length; /* what of it changed: from the first byte to the last; length 0:
                                nothing, the result was the same */
    const char *name;        /* of its function; as in struct qallow_node */
    uint64_t reserved[4];
};
#define QALLOW_REASON_INIT                                                                         \
    {                                                                                              \
        sizeof(struct qallow_reason), 0, 0, 0, 0, 0, 0, 0, NULL, { 0 }                             \
    }
/* Why `page` was computed the last time: reasons[0] is its own, each next one that of the cause
 * before it, down to the change that began it. Up to `capacity` of them, each of which must be
 * initialised; *count is how many there are. What is known begins with the creation of the graph.
 * PAGE_NOT_FOUND. */
QALLOW_API int qallow_graph_explain(struct qallow_graph *graph, uint64_t page,
                                    struct qallow_reason *reasons, size_t capacity, size_t *count);

#ifdef __cplusplus
}
#endif
#endif
