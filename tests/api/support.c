/* SPDX-License-Identifier: Apache-2.0 */
/* A folder, a seed, and stores to begin with. */
#include "tests/api/support.h"

#include <inttypes.h>
#include <time.h>
#include <unistd.h>

static char directory[256];
uint64_t seed;

const char *path(const char *name)
{
    static char buffers[4][512];
    static unsigned turn;
    char *buffer = buffers[turn++ % 4];
    snprintf(buffer, sizeof buffers[0], "%s/%s", directory, name);
    return buffer;
}

static void remove_log(const char *name)
{
    static const char *const suffixes[] = {"", "-index", ".lock", ".bad"};
    char full[600];
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        snprintf(full, sizeof full, "%s%s", path(name), suffixes[i]);
        unlink(full);
    }
}

struct qallow_store *open_new(const char *name)
{
    struct qallow_options options = QALLOW_OPTIONS_INIT;
    struct qallow_store *store;
    remove_log(name);
    options.writable = options.create = 1;
    options.logical_clock = 1;
    options.sync = QALLOW_SYNC_NONE;
    assert_ok(qallow_open(path(name), &options, &store));
    return store;
}

uint64_t create_page(struct qallow_txn *txn, const char *name, uint64_t parent,
                     enum qallow_kind kind)
{
    struct qallow_page_options options = QALLOW_PAGE_OPTIONS_INIT;
    uint64_t page;
    options.name = name;
    options.parent = parent;
    options.kind = kind;
    assert_ok(qallow_page_create(txn, &options, &page));
    return page;
}

uint64_t store_with_page(struct qallow_store *store, const void *bytes, size_t length)
{
    struct qallow_txn *txn;
    uint64_t page;
    assert_ok(qallow_begin(store, &txn));
    page = create_page(txn, "page", 0, QALLOW_RAW);
    assert_ok(qallow_page_write(txn, page, 0, bytes, length));
    assert_ok(qallow_commit(txn, NULL));
    return page;
}

int support_begin(void)
{
    const char *given = getenv("QALLOW_SEED"), *temporary = getenv("TMPDIR");

    seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    print_message("QALLOW_SEED=%" PRIu64 "\n", seed);
    snprintf(directory, sizeof directory, "%s/qallow-api-XXXXXX", temporary ? temporary : "/tmp");
    return mkdtemp(directory) ? 0 : -1;
}

int support_end(void)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    return system(command);
}
