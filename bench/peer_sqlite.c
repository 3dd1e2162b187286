/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SQLite in WAL mode, as a shared library found at run time: rows of 4 KiB, of which 64 bytes are
 * written in place (incremental blobs), which is the cheapest way it has.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench/peer.h"
#include "bench/peer_store.h"
#include "runtime/os.h"

/* The functions of libsqlite3.so.0 used here; https://www.sqlite.org/c3ref/funclist.html. */
struct library {
    void *handle;
    int (*open)(const char *path, void **db);
    int (*close)(void *db);
    int (*exec)(void *db, const char *sql, void *callback, void *context, char **error);
    int (*prepare)(void *db, const char *sql, int length, void **statement, const char **tail);
    int (*bind_blob)(void *statement, int at, const void *bytes, int length, void (*free)(void *));
    int (*step)(void *statement);
    int (*reset)(void *statement);
    int (*finalize)(void *statement);
    int (*blob_open)(void *db, const char *base, const char *table, const char *column,
                     long long row, int write, void **blob);
    int (*blob_reopen)(void *blob, long long row);
    int (*blob_write)(void *blob, const void *bytes, int length, int offset);
    int (*blob_close)(void *blob);
    const char *(*errmsg)(void *db);
    const char *(*version)(void);
};
enum { SQLITE_DONE = 101 };

struct sqlite {
    struct qm_peer_work work; /* first */
    struct library lib;
    void *db, *blob;
};

static int load(struct library *lib, char *text, size_t size)
{
    const struct qm_peer_function functions[] = {
        {"sqlite3_open", &lib->open},
        {"sqlite3_close", &lib->close},
        {"sqlite3_exec", &lib->exec},
        {"sqlite3_prepare_v2", &lib->prepare},
        {"sqlite3_bind_blob", &lib->bind_blob},
        {"sqlite3_step", &lib->step},
        {"sqlite3_reset", &lib->reset},
        {"sqlite3_finalize", &lib->finalize},
        {"sqlite3_blob_open", &lib->blob_open},
        {"sqlite3_blob_reopen", &lib->blob_reopen},
        {"sqlite3_blob_write", &lib->blob_write},
        {"sqlite3_blob_close", &lib->blob_close},
        {"sqlite3_errmsg", &lib->errmsg},
        {"sqlite3_libversion", &lib->version},
    };
    lib->handle = qm_peer_library("libsqlite3.so.0", functions,
                                  sizeof functions / sizeof *functions, text, size);
    return lib->handle != NULL;
}

static int find(char *text, size_t size)
{
    struct library lib;
    if (!load(&lib, text, size))
        return 0;
    snprintf(text, size, "SQLite %s", lib.version());
    dlclose(lib.handle);
    return 1;
}

const struct qm_peer qm_sqlite = {"sqlite", "libsqlite3-0", find};

static int failed(struct sqlite *s, const char *what)
{
    return qr_fail(QALLOW_E_UNAVAILABLE, "SQLite, %s: %s", what,
                   s->db ? s->lib.errmsg(s->db) : "cannot be opened");
}

static int execute(struct sqlite *s, const char *sql)
{
    return s->lib.exec(s->db, sql, NULL, NULL, NULL) == 0 ? 0 : failed(s, sql);
}

static int fill(struct sqlite *s, uint64_t pages)
{
    void *statement;
    int rc = 0;
    if (s->lib.prepare(s->db, "insert into page(data) values(?)", -1, &statement, NULL) != 0)
        return failed(s, "insert");
    for (uint64_t i = 0; rc == 0 && i < pages; i++) {
        const uint8_t *bytes = s->work.store.source + i * 64 % (QM_SOURCE - QM_PEER_PAGE);
        s->lib.bind_blob(statement, 1, bytes, QM_PEER_PAGE, NULL);
        if (s->lib.step(statement) != SQLITE_DONE)
            rc = failed(s, "insert");
        s->lib.reset(statement);
    }
    s->lib.finalize(statement);
    return rc;
}

static int setup(struct qm_context *context, enum qallow_sync sync, uint64_t writes,
                 const char *mode)
{
    struct sqlite *s = context->state = qr_calloc(1, sizeof *s);
    char text[160];
    if (!s)
        return qm_no_memory();
    int rc = qm_peer_setup(context, &s->work, sync, writes);
    if (rc < 0)
        return rc;
    if (!load(&s->lib, text, sizeof text))
        return qr_fail(QALLOW_E_UNAVAILABLE, "%s", text);
    if (s->lib.open(qm_path(context, "sqlite.db"), &s->db) != 0)
        return failed(s, "open");
    rc = execute(s, "pragma page_size=8192; pragma journal_mode=wal; pragma synchronous=off; "
                    "pragma cache_size=-262144; "
                    "create table page(id integer primary key, data blob); begin");
    rc = rc < 0 ? rc : fill(s, s->work.store.page_count);
    rc = rc < 0 ? rc : execute(s, "commit; pragma wal_checkpoint(truncate)");
    return rc < 0 ? rc : execute(s, mode);
}
static int setup_batched(struct qm_context *context)
{
    return setup(context, QALLOW_SYNC_NONE, QM_PEER_BATCH, "pragma synchronous=off");
}
static int setup_durable(struct qm_context *context)
{
    return setup(context, QALLOW_SYNC_COMMIT, 1, "pragma synchronous=full");
}

static void finish(struct qm_context *context)
{
    struct sqlite *s = context->state;
    if (!s)
        return;
    if (s->db)
        s->lib.close(s->db);
    if (s->lib.handle)
        dlclose(s->lib.handle);
    qm_store_finish(&s->work.store);
    qr_free(s);
}

static int transaction(struct sqlite *s)
{
    int rc = execute(s, "begin immediate");
    if (rc < 0)
        return rc;
    if (s->lib.blob_open(s->db, "main", "page", "data", 1, 1, &s->blob) != 0)
        return failed(s, "blob");
    for (uint64_t i = 0; rc == 0 && i < s->work.writes; i++) {
        uint32_t offset, page = qm_peer_place(&s->work, s->work.store.page_count, &offset);
        if (s->lib.blob_reopen(s->blob, (long long)page + 1) != 0 ||
            s->lib.blob_write(s->blob, qm_peer_bytes(&s->work), QM_PEER_DELTA, (int)offset) != 0)
            rc = failed(s, "blob write");
    }
    s->lib.blob_close(s->blob);
    return rc < 0 ? rc : execute(s, "commit");
}

static int run_sqlite(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct sqlite *s = context->state;
    double start = qm_now();
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < repeats; i++)
        rc = transaction(s);
    *sample = (struct qm_sample){qm_now() - start, (double)repeats * (double)s->work.writes};
    return rc;
}

static const struct qm_work batched = {setup_batched, qm_peer_run, run_sqlite, finish};
static const struct qm_work durable = {setup_durable, qm_peer_run, run_sqlite, finish};

/* clang-format off */
const struct qm_case qm_sqlite_cases[] = {
    {"peer/sqlite-batched", "vs SQLite: 1,000 x 64 B a commit", "SQLite WAL OFF",
     "64-byte writes into values of 4 KiB, 1,000 in a commit that is not synced; beside "
     "incremental blob writes of SQLite in WAL mode with synchronous=off.",
     &qm_thousand_s, {QM_RATIO, 8}, &batched, .size = 64 << 20, .smoke_size = 4 << 20,
     .peer = &qm_sqlite},
    {"peer/sqlite-durable", "vs SQLite: durable commit of 64 B", "SQLite WAL FULL",
     "One 64-byte write a commit, on the disk when it returns; beside SQLite in WAL mode with "
     "synchronous=full.",
     &qm_thousand_s, {QM_RATIO, 1.3}, &durable, .size = 64 << 20, .smoke_size = 4 << 20,
     .peer = &qm_sqlite},
    {0},
};
