/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LMDB, as a shared library found at run time: values of 4 KiB under integer keys, of which a
 * write changes 64 bytes, which means putting the value anew.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/peer.h"
#include "bench/peer_store.h"
#include "runtime/os.h"

struct value {
    size_t size;
    void *data;
};
/* The functions of liblmdb.so.0 used here; http://www.lmdb.tech/doc/group__mdb.html. */
struct library {
    void *handle;
    int (*create)(void **env);
    int (*set_mapsize)(void *env, size_t size);
    int (*open)(void *env, const char *path, unsigned flags, unsigned mode);
    void (*close)(void *env);
    int (*begin)(void *env, void *parent, unsigned flags, void **txn);
    int (*commit)(void *txn);
    void (*abort)(void *txn);
    int (*dbi_open)(void *txn, const char *name, unsigned flags, unsigned *dbi);
    int (*get)(void *txn, unsigned dbi, struct value *key, struct value *data);
    int (*put)(void *txn, unsigned dbi, struct value *key, struct value *data, unsigned flags);
    char *(*strerror)(int error);
    char *(*version)(int *major, int *minor, int *patch);
};
enum {
    MDB_INTEGERKEY = 0x08,
    MDB_CREATE = 0x40000,
    MDB_NOSYNC = 0x10000,
    MDB_WRITEMAP = 0x80000,
    MDB_NORDAHEAD = 0x800000,
    MDB_RESERVE = 0x10000, /* of put */
};

struct lmdb {
    struct qm_peer_work work; /* first */
    struct library lib;
    void *env;
    unsigned dbi;
};

static int load(struct library *lib, char *text, size_t size)
{
    const struct qm_peer_function functions[] = {
        {"mdb_env_create", &lib->create}, {"mdb_env_set_mapsize", &lib->set_mapsize},
        {"mdb_env_open", &lib->open},     {"mdb_env_close", &lib->close},
        {"mdb_txn_begin", &lib->begin},   {"mdb_txn_commit", &lib->commit},
        {"mdb_txn_abort", &lib->abort},   {"mdb_dbi_open", &lib->dbi_open},
        {"mdb_get", &lib->get},           {"mdb_put", &lib->put},
        {"mdb_strerror", &lib->strerror}, {"mdb_version", &lib->version},
    };
    lib->handle = qm_peer_library("liblmdb.so.0", functions, sizeof functions / sizeof *functions,
                                  text, size);
    return lib->handle != NULL;
}

static int find(char *text, size_t size)
{
    struct library lib;
    if (!load(&lib, text, size))
        return 0;
    snprintf(text, size, "%s", lib.version(NULL, NULL, NULL));
    dlclose(lib.handle);
    return 1;
}

const struct qm_peer qm_lmdb = {"lmdb", "liblmdb0", find};

static int check(const struct lmdb *l, int result, const char *what)
{
    return result == 0
               ? 0
               : qr_fail(QALLOW_E_UNAVAILABLE, "LMDB, %s: %s", what, l->lib.strerror(result));
}

static int fill(struct lmdb *l, uint64_t pages)
{
    void *txn;
    int rc = check(l, l->lib.begin(l->env, NULL, 0, &txn), "begin");
    if (rc < 0)
        return rc;
    rc = check(l, l->lib.dbi_open(txn, NULL, MDB_INTEGERKEY | MDB_CREATE, &l->dbi), "open");
    for (uint32_t i = 0; rc == 0 && i < pages; i++) {
        struct value key = {sizeof i, &i};
        struct value data = {QM_PEER_PAGE,
                             l->work.store.source + i * 64u % (QM_SOURCE - QM_PEER_PAGE)};
        rc = check(l, l->lib.put(txn, l->dbi, &key, &data, 0), "put");
    }
    if (rc == 0)
        return check(l, l->lib.commit(txn), "commit");
    l->lib.abort(txn);
    return rc;
}

static int setup(struct qm_context *context, enum qallow_sync sync, uint64_t writes, unsigned flags)
{
    struct lmdb *l = context->state = qr_calloc(1, sizeof *l);
    const char *directory = qm_path(context, "lmdb");
    char text[160];
    if (!l)
        return qm_no_memory();
    int rc = qm_peer_setup(context, &l->work, sync, writes);
    if (rc < 0)
        return rc;
    if (!load(&l->lib, text, sizeof text))
        return qr_fail(QALLOW_E_UNAVAILABLE, "%s", text);
    mkdir(directory, 0700);
    rc = check(l, l->lib.create(&l->env), "create");
    rc = rc < 0 ? rc : check(l, l->lib.set_mapsize(l->env, (size_t)4 << 30), "map size");
    rc =
        rc < 0 ? rc : check(l, l->lib.open(l->env, directory, flags | MDB_NORDAHEAD, 0600), "open");
    return rc < 0 ? rc : fill(l, l->work.store.page_count);
}
static int setup_batched(struct qm_context *context)
{
    return setup(context, QALLOW_SYNC_NONE, QM_PEER_BATCH, MDB_NOSYNC | MDB_WRITEMAP);
}
static int setup_durable(struct qm_context *context)
{
    return setup(context, QALLOW_SYNC_COMMIT, 1, 0);
}

static void finish(struct qm_context *context)
{
    struct lmdb *l = context->state;
    if (!l)
        return;
    if (l->env)
        l->lib.close(l->env);
    if (l->lib.handle)
        dlclose(l->lib.handle);
    qm_store_finish(&l->work.store);
    qr_free(l);
}

static int update(struct lmdb *l, void *txn)
{
    uint32_t offset, number = qm_peer_place(&l->work, l->work.store.page_count, &offset);
    struct value key = {sizeof number, &number}, old, new_ = {QM_PEER_PAGE, NULL};
    uint8_t bytes[QM_PEER_PAGE];
    int rc = check(l, l->lib.get(txn, l->dbi, &key, &old), "get");
    if (rc < 0)
        return rc;
    memcpy(bytes, old.data, sizeof bytes);
    memcpy(bytes + offset, qm_peer_bytes(&l->work), QM_PEER_DELTA);
    rc = check(l, l->lib.put(txn, l->dbi, &key, &new_, MDB_RESERVE), "put");
    if (rc == 0)
        memcpy(new_.data, bytes, sizeof bytes);
    return rc;
}

static int run_lmdb(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct lmdb *l = context->state;
    double start = qm_now();
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < repeats; i++) {
        void *txn;
        rc = check(l, l->lib.begin(l->env, NULL, 0, &txn), "begin");
        if (rc < 0)
            return rc;
        for (uint64_t n = 0; rc == 0 && n < l->work.writes; n++)
            rc = update(l, txn);
        if (rc == 0)
            rc = check(l, l->lib.commit(txn), "commit");
        else
            l->lib.abort(txn);
    }
    *sample = (struct qm_sample){qm_now() - start, (double)repeats * (double)l->work.writes};
    return rc;
}

static const struct qm_work batched = {setup_batched, qm_peer_run, run_lmdb, finish};
static const struct qm_work durable = {setup_durable, qm_peer_run, run_lmdb, finish};

/* clang-format off */
const struct qm_case qm_lmdb_cases[] = {
    {"peer/lmdb-batched", "vs LMDB: 1,000 x 64 B a commit", "LMDB NOSYNC",
     "64-byte writes into values of 4 KiB, 1,000 in a commit that is not synced; beside LMDB with "
     "NOSYNC and WRITEMAP, its fastest mode.",
     &qm_thousand_s, {QM_RATIO, 8}, &batched, .size = 64 << 20, .smoke_size = 4 << 20,
     .peer = &qm_lmdb},
    {"peer/lmdb-durable", "vs LMDB: durable commit of 64 B", "LMDB",
     "One 64-byte write a commit, on the disk when it returns; beside LMDB with its default "
     "syncs.",
     &qm_thousand_s, {QM_NOTHING, 0}, &durable, .size = 64 << 20, .smoke_size = 4 << 20,
     .peer = &qm_lmdb},
    {0},
};
