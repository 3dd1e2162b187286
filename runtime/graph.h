/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the dependency graph share. The tour: graph_wave.c. */
#ifndef QR_GRAPH_H
#define QR_GRAPH_H

#include "qallow/graph.h"
#include "runtime/api.h"
#include "runtime/arena.h"
#include "runtime/batch.h"
#include "runtime/store_internal.h"

enum {
    QR_GRAPH_INPUTS_MAX = 65535,
    QR_GRAPH_NAME_MAX = 255,
};
#define QR_GRAPH_VOLATILE (UINT64_C(1) << 63) /* in the ids of volatile pages */
#define QR_GRAPH_NONE     UINT32_MAX

/* Sorted ranges that do not touch. Zero-initialise. */
struct qr_ranges {
    struct qr_extent {
        uint64_t offset, end;
    } * items;
    uint32_t count, capacity;
};
int qr_ranges_add(struct qr_ranges *ranges, uint64_t offset, uint64_t end); /* NO_MEMORY */
void qr_ranges_finish(struct qr_ranges *ranges);

enum { QR_RELOAD_OLD = 1, QR_RELOAD_NEW = 2 };

struct qr_edge {
    uint32_t from; /* the vertex that is read */
    uint32_t access;
    uint64_t unit, before, after;
};

/* A page of the graph: a node, or a source, which only others depend on. */
struct qr_vertex {
    /* What a hop touches: three lines of the cache. */
    uint64_t id;              /* 0: free for another one; `rank` is the next such */
    qallow_function function; /* NULL: a source */
    void *context;
    uint32_t *children; /* vertices */
    uint32_t input_count, child_count;
    uint32_t first;                          /* inputs[0].from */
    uint32_t rank;                           /* in the topological order */
    uint8_t flags, is_stale, why, is_ranged; /* some input is not QALLOW_WHOLE */
    uint8_t is_loaded;                       /* `bytes` are its content */
    uint8_t must_reload; /* it moved: it is read again. NEW: in this transaction */
    uint8_t is_pending;  /* has ranges in `pending` */
    uint8_t unused8;
    uint64_t touched_in; /* the transaction that touched it last, see graph->now */

    uint8_t *bytes;
    uint64_t size;
    struct qr_ranges changed; /* in the transaction touched_in */
    struct qr_edge *inputs;
    uint64_t fuel;
    uint64_t equal;  /* how often it gave the same bytes */
    uint64_t log_id; /* loose: the page of the log that has a node's content; 0: none */

    struct qr_past {
        uint64_t epoch, cause, computed_bytes, offset, length;
        uint32_t why;
    } past;
    uint64_t computed, computed_bytes;

    /* Everything else. */
    struct qr_ranges pending; /* changed in earlier transactions, since the last wave */
    struct qb_u128 sum;       /* of a node's cells */
    uint64_t capacity, unit, version, signature;
    char *name; /* of the function */
    char *volatile_name;
    uint32_t level, child_capacity;
    /* of a delta that is being noted */
    uint64_t note_at, note_size; /* where its operations are, the size before it */
    uint64_t note_ended;         /* one has changed the end */
    uint64_t unused_end[2];
};

/* The vertex of an input: of the first one without going to `inputs`. */
static inline uint32_t qr_input(const struct qr_vertex *v, uint32_t i)
{
    return i == 0 ? v->first : v->inputs[i].from;
}

/* What a transaction did to a vertex, until it is over. */
struct qr_touched {
    uint32_t vertex;
    uint8_t is_node, is_computed, was_stale;
    struct qr_past before; /* of a node */
};

/* How to take a change of content back. */
struct qr_undo {
    uint32_t vertex;
    enum { QR_UNDO_BYTES, QR_UNDO_SIZE, QR_UNDO_LOAD } what;
    uint64_t offset, length; /* SIZE: length is the old size */
    size_t data;             /* BYTES: where the old ones are in `undo_bytes` */
    struct qb_u128 sum;      /* SIZE: the old one */
};

/* A change of a source that has been seen but not made in memory yet. */
struct qr_note {
    uint32_t vertex;
    enum { QR_NOTE_BYTES, QR_NOTE_ZEROS, QR_NOTE_SIZE, QR_NOTE_RANGE } what;
    uint64_t offset, length; /* SIZE: length is the new size */
    size_t data;
};

struct qallow_graph {
    struct qallow_store *store;
    struct qallow_graph_options options;
    int is_deriving; /* records that come are our own */
    int has_waved;   /* the transaction's changes have reached all nodes */
    /* vertices, found by id in an open-addressing table of index + 1; vertices[0] is the table of
     * the graph, which is in no table and no order */
    struct qr_vertex *vertices; /* aligned to lines of the cache, in: */
    void *vertices_memory;
    uint32_t count, capacity, free_count, free_first;
    uint32_t *table;
    uint32_t table_size;
    uint64_t edges, nodes;
    /* topological order */
    uint32_t *order; /* rank -> vertex */
    uint64_t *dirty; /* a bit for each rank */
    uint32_t order_count, order_capacity;
    int is_ordered;
    uint32_t stale_count, pending_count;
    uint32_t *marks; /* scratch of searches, `capacity` of them */
    /* the transaction */
    struct qr_txn *txn;
    uint64_t epoch;
    uint64_t now; /* counts transactions, those that failed, too */
    struct qr_touched *touched;
    size_t touched_count, touched_capacity;
    struct qr_undo *undo;
    size_t undo_count, undo_capacity;
    struct qr_arena undo_bytes;
    struct qr_note *notes;
    size_t note_count, note_capacity;
    struct qr_arena note_bytes;
    struct qb_u128 volatile_digest, volatile_digest_before;
    struct qr_batch *batch;
    struct qr_edits edits;
    struct qr_reader *reader;
    struct qallow_input *inputs; /* of a call */
    size_t inputs_capacity;
    uint8_t *scratch; /* output of a call */
    size_t scratch_capacity, scratch_length;
    struct qr_ranges output; /* to be computed */
    /* the table in the log, graph_table.c */
    uint64_t table_page;         /* 0: there is none yet */
    int table_is_old;            /* definitions have changed since it was written */
    int table_is_written;        /* by this transaction; */
    int table_is_new;            /* which has made its page */
    struct qr_arena table_bytes; /* being built */
    struct qr_stored {
        uint64_t page, signature;
    } * stored; /* as it was when the graph was made, by page; */
    size_t stored_count;
    uint64_t stored_epoch; /* and the epoch of its last wave */
    uint64_t waves, memory;
    uint64_t computed, equal, computed_bytes;
    struct qr_derive derive;
    struct qr_batch *log_batch; /* loose: deltas that the log's next transaction shall have */
    struct qr_store *log;
    /* of qallow_graph_check: where sources and expected results come from; else NULL */
    struct qallow_view *checking;
};

/* --- graph.c --- */
struct qr_vertex *qr_graph_find(const struct qallow_graph *graph, uint64_t id);
static inline uint32_t qr_vertex_index(const struct qallow_graph *graph, const struct qr_vertex *v)
{
    return (uint32_t)(v - graph->vertices);
}
/* "page 7", or "page 7 (blur)" with the function's name; one of four buffers per thread. */
const char *qr_vertex_name(const struct qr_vertex *vertex);
/* Keeps commits and all other callers out, until qr_graph_leave. STATE if it is a function of the
 * graph that calls. */
int qr_graph_enter(struct qallow_graph *graph);
void qr_graph_leave(struct qallow_graph *graph);
/* The same for who reads from views of the store: a view of the newest state locks that, and its
 * lock comes before that of pages. To be unlocked behind qr_graph_leave(). */
int qr_graph_enter_reading(struct qallow_graph *graph);
extern _Thread_local int qr_graph_in_function; /* this thread runs functions */
/* A graph without nodes, of a store or (NULL) of none. */
int qr_graph_make(struct qallow_store *store, const struct qallow_graph_options *options,
                  struct qallow_graph **graph);
void qr_graph_free(struct qallow_graph *graph);

/* The next wave computes it; `why` is an enum qallow_why. */
void qr_graph_set_stale(struct qallow_graph *graph, struct qr_vertex *v, uint8_t why);

/* Has it changed in this transaction? */
static inline int qr_has_changed(const struct qallow_graph *graph, const struct qr_vertex *v)
{
    return v->touched_in == graph->now && v->changed.count > 0;
}

/* --- graph_order.c --- */
/* CYCLE if `vertex` with these inputs would depend on itself. */
int qr_graph_check_cycle(struct qallow_graph *graph, uint32_t vertex, const struct qr_edge *inputs,
                         uint32_t count);
/* Levels and ranks, if they are not up to date. NO_MEMORY. */
int qr_graph_order(struct qallow_graph *graph);

/* --- graph_content.c --- */
/* Its bytes are in memory: of a source and of a node that is not volatile they are read. */
int qr_vertex_load(struct qallow_graph *graph, struct qr_vertex *v, const struct qr_vertex *why);
/* Gives it another size; new bytes are zero. Can be undone. */
int qr_vertex_resize(struct qallow_graph *graph, struct qr_vertex *v, uint64_t size);
/* Overwrites bytes, which must lie in it. Can be undone. `edits` (may be NULL) gets what differs of
 * the first `old_size` bytes, and v->changed what differs at all. */
int qr_vertex_store(struct qallow_graph *graph, struct qr_vertex *v, uint64_t offset,
                    const uint8_t *bytes, uint64_t length, uint64_t old_size,
                    struct qr_edits *edits);
void qr_vertex_unload(struct qallow_graph *graph, struct qr_vertex *v);
void qr_vertex_sum(struct qr_vertex *v);        /* of a node, from its bytes */
void qr_graph_undo(struct qallow_graph *graph); /* everything since the transaction began */
/* Puts it among those of this transaction. */
int qr_graph_touch(struct qallow_graph *graph, struct qr_vertex *v, struct qr_touched **touched);

/* --- graph_note.c --- */
int qr_graph_owns(void *context, uint64_t page);
int qr_graph_note(void *context, const struct qr_record *record);
int qr_graph_apply_notes(struct qallow_graph *graph);

/* --- graph_wave.c --- */
int qr_graph_run(void *context, struct qr_txn *txn);
/* Computes what depends on what has been touched, and what is stale. */
int qr_graph_wave(struct qallow_graph *graph);
void qr_graph_ended(void *context, uint64_t epoch);
void qr_graph_fell_back(void *context);
/* Computes a node: all of it if `is_full`, else what its inputs' changes reach. *changed: its bytes
 * are others, or it is QALLOW_NODE_ALWAYS. */
int qr_graph_compute(struct qallow_graph *graph, struct qr_vertex *v, int is_full, int *changed,
                     struct qr_past *past);

/* --- graph_table.c --- */
int qr_graph_table_load(struct qallow_graph *graph);
int qr_vertex_sign(const struct qallow_graph *graph, struct qr_vertex *v); /* its signature */
/* 1 if the log says that this node's page is what its function makes of its inputs. */
int qr_graph_is_current(struct qallow_graph *graph, const struct qr_vertex *v);
/* Writes the delta of a vertex whose edits are in graph->edits to the batch. */
int qr_vertex_write(struct qallow_graph *graph, struct qr_vertex *v, uint64_t old_size);
/* Appends what has changed of the table to the batch. */
int qr_graph_table_write(struct qallow_graph *graph);
/* 1 if the log has another digest of the volatile pages, because one has been removed. */
int qr_graph_table_is_due(const struct qallow_graph *graph);
/* The transaction is over; epoch 0: it failed. */
void qr_graph_table_ended(struct qallow_graph *graph, uint64_t epoch);
/* The digest of the volatile pages that the view's table has. PAGE_NOT_FOUND if it has none. */
int qr_graph_table_digest(const struct qallow_graph *graph, struct qallow_view *view,
                          struct qb_u128 *digest);
/* The term of a volatile page in the digest. */
struct qb_u128 qr_volatile_term(uint64_t id, uint64_t size, struct qb_u128 sum);

/* --- graph_loose.c: without a store, whose pages are the caller's, by any ids below 2^63 --- */
int qr_graph_create_loose(struct qallow_graph **graph);
void qr_graph_destroy_loose(struct qallow_graph *graph);
/* A source has `size` bytes, and from `offset` on these. What differs from what it had is what its
 * dependents hear of. PAGE_NOT_FOUND: nothing depends on it. */
int qr_graph_set(struct qallow_graph *graph, uint64_t page, uint64_t size, uint64_t offset,
                 const void *bytes, uint64_t length);
/* A page that is new in the graph has this content; a node is up to date with it, or (is_stale) is
 * computed by the next wave, whose result is compared with it. Not between
 * qr_graph_set() and qr_graph_propagate(). */
int qr_graph_adopt(struct qallow_graph *graph, uint64_t page, const void *bytes, uint64_t size,
                   int is_stale);
/* The content of a page of the graph, until the next call. */
void qr_graph_look(const struct qallow_graph *graph, uint64_t page, const uint8_t **bytes,
                   uint64_t *size);
/* What of a node's page has become different, up to its end if it has another size. */
struct qr_derived {
    uint64_t page;
    const uint8_t *bytes;
    uint64_t size;
    const struct qr_extent *ranges; /* the last may reach beyond the page, if it has got shorter */
    uint32_t count;
};
/* The graph's deltas can go into a store's log, whose page `log_id` has the content that the node
 * has now. Until qr_graph_detach(), or another graph takes its place. */
void qr_graph_attach(struct qallow_graph *graph, struct qallow_store *store);
void qr_graph_log_page(struct qallow_graph *graph, uint64_t page, uint64_t log_id);
void qr_graph_detach(struct qallow_graph *graph);
/* Computes what depends on what was set since the last time, as `epoch`, which is not 0, and tells
 * each page that is different then. If a function fails, or `tell` does, all of it is undone, what
 * was set too. `is_logged`: the next transaction of the store it is attached to has what changed.
 */
int qr_graph_propagate(struct qallow_graph *graph, uint64_t epoch, int is_logged,
                       int (*tell)(void *context, const struct qr_derived *derived), void *context);

#endif
