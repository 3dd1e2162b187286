/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache against a model: an array of what every path should be. Random puts, removals, walks
 * and publications; the keeper is closed or abandoned in between and followed by another one.
 * Whenever an epoch was published, get, since (from every epoch) and each must say what the model
 * says.
 */
#include "tests/accelerator/cache_support.h"

#include "tests/accelerator/seed.h"

enum { PATHS = 400, ROUNDS = 60 };

struct model_path {
    char name[300];
    uint64_t version, epoch; /* version 0: not there; epoch of the last change, 0: never was */
    int visited, is_seen;
};

struct model {
    struct model_path paths[PATHS];
    struct qa_cache *keeper;
    struct qallow_cache *reader;
    uint64_t epochs[ROUNDS * 4]; /* that were published */
    size_t epoch_count;
    uint64_t versions, since;
    unsigned seed;
};

static unsigned below(struct model *model, unsigned n)
{
    return (unsigned)rand_r(&model->seed) % n;
}

/* Short and long names, in directories and not. */
static void name_paths(struct model *model)
{
    for (int i = 0; i < PATHS; i++) {
        char *name = model->paths[i].name;
        int length = snprintf(name, 40, "%s%d", i % 3 ? "src/lib/" : "", i);
        size_t more = i % 7 == 0 ? below(model, 250) : below(model, 20);
        memset(name + length, 'x', more);
        name[(size_t)length + more] = '\0';
    }
}

static void check_path(struct model *model, struct model_path *path)
{
    struct qallow_file file;
    struct qa_file known;
    int result = qallow_cache_get(model->reader, path->name, &file);
    assert_int_equal(result, path->version ? 0 : QALLOW_E_PAGE_NOT_FOUND);
    assert_int_equal(qa_cache_get(model->keeper, path->name, &known), path->version != 0);
    if (!path->version)
        return;
    struct qa_file wanted = test_file(path->name, path->version);
    assert_memory_equal(&known, &wanted, sizeof known);
    assert_true(test_is_consistent(path->name, &file));
    assert_int_equal(file.inode, path->version);
    assert_int_equal(file.epoch, path->epoch);
    assert_int_equal(file.state, QALLOW_FILE_CURRENT);
}

static int visit(void *context, const char *name, const struct qallow_file *file)
{
    struct model *model = context;
    const char *digits = strncmp(name, "src/lib/", 8) == 0 ? name + 8 : name;
    struct model_path *path = &model->paths[strtoul(digits, NULL, 10)];
    assert_string_equal(path->name, name);
    assert_int_equal(path->visited, 0);
    path->visited = 1;
    assert_int_equal(file->epoch, path->epoch);
    assert_int_equal(file->removed, path->version == 0);
    if (path->version)
        assert_int_equal(file->inode, path->version);
    return 0;
}

static void check_lists(struct model *model)
{
    uint64_t now = 0;
    for (size_t i = 0; i < model->epoch_count; i++) {
        model->since = model->epochs[i];
        assert_int_equal(qallow_cache_since(model->reader, model->since, visit, model, &now), 0);
        assert_int_equal(now, model->epochs[model->epoch_count - 1]);
        for (int k = 0; k < PATHS; k++) {
            assert_int_equal(model->paths[k].visited, model->paths[k].epoch > model->since);
            model->paths[k].visited = 0;
        }
    }
    assert_int_equal(qallow_cache_each(model->reader, visit, model, &now), 0);
    for (int k = 0; k < PATHS; k++) {
        assert_int_equal(model->paths[k].visited, model->paths[k].version != 0);
        model->paths[k].visited = 0;
    }
}

static void put(struct model *model, struct model_path *path)
{
    int same = path->version && below(model, 4) == 0;
    uint64_t version = same ? path->version : ++model->versions;
    struct qa_file file = test_file(path->name, version);
    if (same) { /* only what readers do not see */
        file.ctime_ns++;
        file.device++;
        qa_cache_pending(model->keeper, path->name);
        assert_int_equal(qa_cache_put(model->keeper, path->name, &file, NULL), 0);
        file = test_file(path->name, version);
    }
    assert_int_equal(qa_cache_put(model->keeper, path->name, &file, NULL), !same);
    path->version = version;
    path->is_seen = 1;
    if (!same)
        path->epoch = UINT64_MAX; /* the next one */
}

static void drop(struct model *model, struct model_path *path)
{
    assert_int_equal(qa_cache_remove(model->keeper, path->name), path->version != 0);
    if (path->version)
        path->epoch = UINT64_MAX;
    path->version = 0;
}

static void walk(struct model *model)
{
    uint64_t gone = 0;
    qa_cache_begin_walk(model->keeper);
    for (int i = 0; i < PATHS; i++)
        model->paths[i].is_seen = 0;
    for (int i = 0; i < PATHS; i++) {
        struct model_path *path = &model->paths[i];
        if (below(model, 10) == 0)
            put(model, path);
        else if (path->version && below(model, 10)) {
            qa_cache_see(model->keeper, path->name);
            path->is_seen = 1;
        }
    }
    for (int i = 0; i < PATHS; i++)
        if (model->paths[i].version && !model->paths[i].is_seen) {
            gone++;
            model->paths[i].version = 0;
            model->paths[i].epoch = UINT64_MAX;
        }
    assert_int_equal(qa_cache_sweep(model->keeper), gone);
}

static void publish(struct model *model)
{
    int changed = 0;
    for (int i = 0; i < PATHS; i++)
        changed |= model->paths[i].epoch == UINT64_MAX;
    uint64_t old = qa_cache_epoch(model->keeper);
    uint64_t wanted = below(model, 3) == 0 ? old + 1 + below(model, 5) : 0;
    uint64_t epoch = qa_cache_publish(model->keeper, wanted);
    assert_int_equal(epoch, wanted ? wanted : old + (uint64_t)changed);
    for (int i = 0; i < PATHS; i++)
        if (model->paths[i].epoch == UINT64_MAX)
            model->paths[i].epoch = epoch;
    if (epoch > old)
        model->epochs[model->epoch_count++] = epoch;
    assert_int_equal(qallow_cache_epoch(model->reader), epoch);
}

/* Another keeper, after a clean end or (as far as the memory shows) a kill. The reader stays. */
static void change_keeper(struct model *model)
{
    qa_cache_close(model->keeper);
    model->keeper = test_keeper(0);
    assert_string_equal(test_notices, "");
}

static void change_something(struct model *model)
{
    unsigned count = below(model, 10) == 0 ? PATHS : below(model, 20);
    for (unsigned i = 0; i < count; i++) {
        struct model_path *path = &model->paths[below(model, PATHS)];
        if (below(model, 3))
            put(model, path);
        else
            drop(model, path);
    }
    if (below(model, 5) == 0)
        walk(model);
    if (below(model, 5) == 0)
        change_keeper(model);
}

static void random_operations_agree_with_the_model(void **state)
{
    struct model *model = calloc(1, sizeof *model);
    model->seed = test_seed();
    name_paths(model);
    model->keeper = test_keeper(0);
    model->reader = test_reader();
    model->epochs[model->epoch_count++] = 0;
    for (int round = 0; round < ROUNDS; round++) {
        change_something(model);
        publish(model);
        for (int i = 0; i < PATHS; i++)
            check_path(model, &model->paths[i]);
        check_lists(model);
        assert_int_equal(qa_cache_count(model->keeper), model->keeper->files);
    }
    qallow_cache_close(model->reader);
    qa_cache_close(model->keeper);
    free(model);
}

static int count_one(void *context, const char *path, const struct qallow_file *file)
{
    ++*(uint64_t *)context;
    return 0;
}

/* More changes than the journal has room for: old epochs are refused, newer ones answered. */
static void the_journal_forgets_the_oldest(void **state)
{
    struct qa_cache *keeper = test_keeper(0);
    struct qallow_cache *reader = test_reader();
    struct qallow_cache_info info = QALLOW_CACHE_INFO_INIT;
    struct qallow_file file;
    char name[32];
    uint64_t epoch = qa_cache_epoch(keeper), first = epoch, now, count;
    for (unsigned i = 0; i < 2 * QA_RING_LEAST; i++) {
        snprintf(name, sizeof name, "temporary/%u", i);
        struct qa_file put = test_file(name, i + 1);
        assert_int_equal(qa_cache_put(keeper, name, &put, NULL), 1);
        if (i >= 10) { /* one comes, one goes */
            snprintf(name, sizeof name, "temporary/%u", i - 10);
            assert_int_equal(qa_cache_remove(keeper, name), 1);
        }
        if (i % 100 == 99)
            epoch = qa_cache_publish(keeper, 0);
    }
    assert_int_equal(qallow_cache_info(reader, &info), 0);
    assert_in_range(info.oldest_epoch, first + 1, epoch - 1);
    assert_in_range(epoch - info.oldest_epoch, QA_RING_LEAST / 200 - 2, QA_RING_LEAST / 100);
    for (uint64_t n = info.oldest_epoch - 3; n <= epoch; n += n < info.oldest_epoch + 3 ? 1 : 50) {
        count = 0;
        int result = qallow_cache_since(reader, n, count_one, &count, &now);
        assert_int_equal(result, n < info.oldest_epoch ? QALLOW_E_EPOCH_NOT_FOUND : 0);
        /* Each epoch has 100 new paths and 100 removed, 90 of which were new in it too. */
        if (result == 0 && n < epoch)
            assert_int_equal(count, 100 * (epoch - n) + 10);
    }
    assert_int_equal(qallow_cache_since(reader, epoch + 1, count_one, &count, &now),
                     QALLOW_E_EPOCH_NOT_FOUND);
    /* What was removed long ago leaves nothing behind. */
    assert_in_range(keeper->used, 10, QA_RING_LEAST + 10);
    assert_int_equal(qallow_cache_get(reader, "temporary/1", &file), QALLOW_E_PAGE_NOT_FOUND);
    qallow_cache_close(reader);
    qa_cache_close(keeper);
}

/* An epoch that is larger than the journal cannot be told from the one before, but later ones can,
 * whatever its number turns out to be. */
static void an_epoch_larger_than_the_journal(void **state)
{
    struct qa_cache *keeper = test_keeper(0);
    struct qallow_cache *reader = test_reader();
    char name[32];
    uint64_t before = qa_cache_publish(keeper, qa_cache_epoch(keeper) + 1), count = 0;
    for (unsigned i = 0; i < 2 * QA_RING_LEAST; i++) {
        snprintf(name, sizeof name, "many/%u", i % 20000);
        struct qa_file put = test_file(name, i + 1);
        assert_int_equal(i % 3 ? qa_cache_put(keeper, name, &put, NULL) >= 0
                               : qa_cache_remove(keeper, name) >= 0,
                         1);
        if (i == QA_RING_LEAST) {
            for (unsigned k = 0; k < QA_RING_LEAST; k++) {
                snprintf(name, sizeof name, "other/%u", k);
                put = test_file(name, k + 1);
                assert_int_equal(qa_cache_put(keeper, name, &put, NULL), 1);
                assert_int_equal(qa_cache_remove(keeper, name), 1);
            }
        }
    }
    assert_int_equal(qallow_cache_since(reader, before, count_one, &count, NULL), 0);
    assert_int_equal(count, 0); /* not published yet */
    uint64_t after = qa_cache_publish(keeper, before + 100);
    assert_int_equal(after, before + 100);
    assert_int_equal(qallow_cache_since(reader, before, count_one, &count, NULL),
                     QALLOW_E_EPOCH_NOT_FOUND);
    assert_int_equal(qallow_cache_since(reader, after, count_one, &count, NULL), 0);
    struct qa_file put = test_file("one more", 1);
    assert_int_equal(qa_cache_put(keeper, "one more", &put, NULL), 1);
    qa_cache_publish(keeper, 0);
    assert_int_equal(qallow_cache_since(reader, after, count_one, &count, NULL), 0);
    assert_int_equal(count, 1);
    qallow_cache_close(reader);
    qa_cache_close(keeper);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(random_operations_agree_with_the_model, test_make_place,
                                        test_remove_place),
        cmocka_unit_test_setup_teardown(the_journal_forgets_the_oldest, test_make_place,
                                        test_remove_place),
        cmocka_unit_test_setup_teardown(an_epoch_larger_than_the_journal, test_make_place,
                                        test_remove_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
