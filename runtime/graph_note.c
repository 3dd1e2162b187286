/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dependency graph: what a transaction changes of its pages.
 *
 * Records come by before they are applied, under the store's lock, so here they are only noted:
 * which bytes of which page, and the bytes themselves. When the transaction has applied everything,
 * the notes are carried out on the content in memory. What moves bytes is not followed: such a page
 * is read again, and everything from the first move on counts as changed.
 */
#include <string.h>

#include "runtime/graph.h"
#include "runtime/os.h"
#include "runtime/store_internal.h"

static int add_note(struct qallow_graph *graph, struct qr_note note, const uint8_t *bytes)
{
    if (bytes && (note.data = qr_arena_put(&graph->note_bytes, bytes, note.length)) == SIZE_MAX)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a change of page %llu",
                       (unsigned long long)graph->vertices[note.vertex].id);
    if (QR_GROW(graph->notes, graph->note_count, graph->note_capacity))
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the changes of a transaction");
    graph->notes[graph->note_count++] = note;
    return 0;
}

static void must_reload(struct qr_vertex *v)
{
    if (!v->must_reload)
        v->must_reload = QR_RELOAD_NEW;
}

/* From `offset` on everything may be different, and has to be read. */
static int note_moved(struct qallow_graph *graph, struct qr_vertex *v, uint64_t offset)
{
    must_reload(v);
    return add_note(graph,
                    (struct qr_note){.vertex = qr_vertex_index(graph, v),
                                     .what = QR_NOTE_RANGE,
                                     .offset = offset,
                                     .length = UINT64_MAX - offset},
                    NULL);
}

/* The page's end becomes others: cut at op->offset, new bytes behind. */
static int note_end(struct qallow_graph *graph, struct qr_vertex *v, const struct qr_op *op)
{
    struct qr_note note = {
        .vertex = qr_vertex_index(graph, v), .what = QR_NOTE_SIZE, .length = op->offset};
    int rc = add_note(graph, note, NULL);
    note.length = op->offset + op->new_length;
    if (!rc)
        rc = add_note(graph, note, NULL);
    note = (struct qr_note){.vertex = note.vertex,
                            .what = QR_NOTE_BYTES,
                            .offset = op->offset,
                            .length = op->new_length};
    if (!rc && op->bytes)
        rc = add_note(graph, note, op->bytes);
    v->note_size = op->offset + op->new_length;
    return rc;
}

static int note_operation(struct qallow_graph *graph, struct qr_vertex *v, const struct qr_op *op)
{
    struct qr_note note = {.vertex = qr_vertex_index(graph, v),
                           .what = QR_NOTE_RANGE,
                           .offset = op->offset,
                           .length = op->old_length};
    int is_end = op->offset + op->old_length == v->note_size && v->is_loaded;
    switch (op->kind) {
    case QR_OP_OVERWRITE:
        note.what = QR_NOTE_BYTES;
        return add_note(graph, note, op->bytes);
    case QR_OP_ZERO:
        note.what = QR_NOTE_ZEROS;
        return add_note(graph, note, NULL);
    case QR_OP_MASK:
        must_reload(v);
        return add_note(graph, note, NULL);
    case QR_OP_REPLACE:
    case QR_OP_REMOVE:
    case QR_OP_GROW:
        /* once: what comes after it in the same delta stands in other places than it says */
        return is_end && !v->note_ended ? (v->note_ended = 1, note_end(graph, v, op))
                                        : note_moved(graph, v, op->offset);
    case QR_OP_COPY:
    default:
        return note_moved(graph, v, op->offset);
    }
}

static int note_delta(struct qallow_graph *graph, struct qr_vertex *v,
                      const struct qr_record *record)
{
    struct qr_cursor cursor = qr_cursor(record->operations, record->operations_length);
    struct qr_op op;
    int rc = 0, more;
    if (record->first) {
        v->note_at = 0;
        v->note_ended = 0;
        v->note_size = record->old_size;
        if (record->base)
            rc = note_moved(graph, v, 0);
    }
    while (!rc && (more = qr_op_next(&cursor, &v->note_at, &op)) > 0)
        if (!v->must_reload || op.kind == QR_OP_OVERWRITE || op.kind == QR_OP_ZERO ||
            op.kind == QR_OP_MASK)
            rc = note_operation(graph, v, &op);
        else
            rc = note_moved(graph, v, op.offset);
    return rc; /* malformed operations are refused by who applies them */
}

int qr_graph_owns(void *context, uint64_t page)
{
    const struct qallow_graph *graph = context;
    const struct qr_vertex *v = qr_graph_find(graph, page);
    return page && (page == graph->table_page || (v && v->function));
}

int qr_graph_note(void *context, const struct qr_record *record)
{
    struct qallow_graph *graph = context;
    struct qr_touched *touched;
    if (graph->is_deriving || record->type == QR_RECORD_IMAGE)
        return 0;
    if (record->page == graph->table_page && record->page)
        return qr_fail(QALLOW_E_STATE, "page %llu is the graph's own",
                       (unsigned long long)record->page);
    struct qr_vertex *v = qr_graph_find(graph, record->page);
    if (!v)
        return 0;
    if (record->type == QR_RECORD_FREE)
        return qr_fail(QALLOW_E_STATE,
                       "%s is part of the dependency graph: take it out before it "
                       "is freed",
                       qr_vertex_name(v));
    if (record->type != QR_RECORD_DELTA)
        return 0;
    if (v->function)
        return qr_fail(QALLOW_E_STATE, "%s is computed from other pages: it cannot be written",
                       qr_vertex_name(v));
    int rc = qr_graph_touch(graph, v, &touched);
    return rc ? rc : note_delta(graph, v, record);
}

static int apply_note(struct qallow_graph *graph, const struct qr_note *note)
{
    struct qr_vertex *v = &graph->vertices[note->vertex];
    if (!v->is_loaded || v->must_reload || note->what == QR_NOTE_RANGE)
        return qr_ranges_add(&v->changed, note->what == QR_NOTE_SIZE ? note->length : note->offset,
                             note->what == QR_NOTE_SIZE ? UINT64_MAX : note->offset + note->length);
    if (note->what == QR_NOTE_SIZE)
        return qr_vertex_resize(graph, v, note->length);
    if (note->what == QR_NOTE_BYTES)
        return qr_vertex_store(graph, v, note->offset, graph->note_bytes.bytes + note->data,
                               note->length, 0, NULL);
    /* zeros: cut off and put on again would be the same only at the end */
    for (uint64_t at = 0; at < note->length;) {
        static const uint8_t zeros[4096];
        uint64_t n = note->length - at < sizeof zeros ? note->length - at : sizeof zeros;
        int rc = qr_vertex_store(graph, v, note->offset + at, zeros, n, 0, NULL);
        if (rc)
            return rc;
        at += n;
    }
    return 0;
}

int qr_graph_apply_notes(struct qallow_graph *graph)
{
    int rc = 0;
    for (size_t i = 0; i < graph->note_count && !rc; i++)
        rc = apply_note(graph, &graph->notes[i]);
    graph->note_count = 0;
    graph->note_bytes.length = 0;
    return rc;
}
