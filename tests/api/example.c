/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Using libqallow from another program: a simulation keeps its grid in a page, commits after every
 * step, looks back at an earlier one, and ships the newest as a file.
 *
 *     cc example.c $(pkg-config --cflags --libs qallow) -o example && ./example DIRECTORY
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "qallow/store.h"

enum { CELLS = 1 << 16, STEPS = 10 };

/* Says what failed; for a real program, do better than to exit. */
static void check(int result, const char *what)
{
    if (result == QALLOW_OK)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, qallow_strerror(result), qallow_error_detail());
    exit(EXIT_FAILURE);
}

/* One step changes a few cells only. */
static void step(double *cells, unsigned n)
{
    for (unsigned i = 0; i < 32; i++)
        cells[(n * 7919 + i * 104729) % CELLS] += 1.0 / (n + 1);
}

int main(int argc, char **argv)
{
    static double cells[CELLS], before[CELLS];
    struct qallow_store *store;
    struct qallow_txn *txn;
    struct qallow_view *view;
    uint64_t grid, epoch;
    char log[4096], file[4096];

    snprintf(log, sizeof log, "%s/simulation.tlog", argc > 1 ? argv[1] : ".");
    snprintf(file, sizeof file, "%s/newest.qckpt", argc > 1 ? argv[1] : ".");

    struct qallow_options options = QALLOW_OPTIONS_INIT;
    options.writable = 1;
    options.create = 1;
    check(qallow_open(log, &options, &store), "open");

    /* The page exists from the first commit on. */
    struct qallow_page_options page = QALLOW_PAGE_OPTIONS_INIT;
    page.name = "grid";
    check(qallow_begin(store, &txn), "begin");
    check(qallow_page_create(txn, &page, &grid), "create");
    check(qallow_page_write(txn, grid, 0, cells, sizeof cells), "write");
    check(qallow_commit(txn, &epoch), "commit");

    /* All of the grid is written each time; only what differs goes into the log. */
    for (unsigned n = 0; n < STEPS; n++) {
        step(cells, n);
        check(qallow_begin(store, &txn), "begin");
        check(qallow_page_write(txn, grid, 0, cells, sizeof cells), "write");
        check(qallow_commit(txn, &epoch), "commit");
    }

    /* The grid as it was three steps ago. */
    check(qallow_view_at(store, epoch - 3, &view), "an earlier epoch");
    check(qallow_page_read(view, grid, 0, before, sizeof before), "read");
    qallow_view_destroy(view);

    unsigned differing = 0;
    for (unsigned i = 0; i < CELLS; i++)
        differing += cells[i] < before[i] || cells[i] > before[i];

    check(qallow_label(store, "finished", 0), "label");
    check(qallow_checkpoint_export(store, epoch, file, 1), "export");
    check(qallow_verify(store, 1), "verify");

    struct qallow_stats stats = QALLOW_STATS_INIT;
    check(qallow_stats_get(store, &stats), "stats");
    printf("epochs: %" PRIu64 "\n", stats.last_epoch);
    printf("cells that differ from three steps ago: %u\n", differing);
    printf("the log is smaller than two copies of the grid: %s\n",
           stats.log_bytes < 2 * sizeof cells ? "yes" : "no");
    check(qallow_close(store), "close");
    return EXIT_SUCCESS;
}
