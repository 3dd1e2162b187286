/* SPDX-License-Identifier: Apache-2.0 */
/* The cache as its keeper and its readers use it: one behaviour after the other. Where it is and
 * who may have it is cache_places.c, what many do at once cache_race.c, what damaged memory does
 * cache_hostile.c. */
#include "tests/accelerator/cache_support.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

static int get(struct qallow_cache *reader, const char *path, struct qallow_file *file)
{
    int result = qallow_cache_get(reader, path, file);
    if (result == 0)
        assert_true(test_is_consistent(path, file));
    return result;
}

static void an_empty_cache_is_small(void **state)
{
    struct qa_cache *keeper = test_keeper(0);
    struct qallow_cache *reader = test_reader();
    char name[20];
    for (unsigned i = 0; i < 10; i++) {
        snprintf(name, sizeof name, "file%u", i);
        test_put(keeper, name, i + 1);
    }
    assert_int_equal(qa_cache_publish(keeper, 0), 1);
    struct qallow_cache_info info = test_info(reader);
    assert_int_equal(info.files, 10);
    assert_int_equal(info.bytes, 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9 + 10);
    assert_int_equal(info.epoch, 1);
    assert_int_equal(info.oldest_epoch, 0);
    assert_int_equal(info.keeper, getpid());
    assert_int_equal(info.hash, QALLOW_HASH_XXH3_128);
    assert_int_equal(info.hash_bytes, 16);
    assert_in_range(info.memory, 1, 65536);
    assert_true(info.memory_limit > 65536 && info.updated_ns > 0);
    assert_string_equal(qallow_cache_root(reader), test_tree);
    qallow_cache_close(reader);
    qa_cache_close(keeper);
}

static void states_are_seen(void **state)
{
    struct qa_cache *keeper = test_keeper(0);
    struct qallow_cache *reader = test_reader();
    assert_int_equal(test_info(reader).state, QALLOW_KEEPER_STARTING);
    qa_cache_set_state(keeper, QALLOW_KEEPER_WATCHING);
    assert_int_equal(test_info(reader).state, QALLOW_KEEPER_WATCHING);
    test_put(keeper, "a", 1);
    qa_cache_publish(keeper, 0);
    qa_cache_close(keeper);
    assert_int_equal(test_info(reader).state, QALLOW_KEEPER_GONE);
    struct qallow_file file;
    assert_int_equal(get(reader, "a", &file), 0);
    qallow_cache_close(reader);
    reader = test_reader(); /* also one that comes later */
    assert_int_equal(get(reader, "a", &file), 0);
    assert_int_equal(test_info(reader).state, QALLOW_KEEPER_GONE);
    /* Small structs of older programs are filled as far as they go. */
    struct qallow_cache_info old = QALLOW_CACHE_INFO_INIT;
    old.size = offsetof(struct qallow_cache_info, epoch);
    assert_int_equal(qallow_cache_info(reader, &old), 0);
    assert_int_equal(old.hash_bytes, 16);
    assert_int_equal(old.epoch, 0);
    qallow_cache_close(reader);
}

static void one_keeper_for_a_directory(void **state)
{
    struct qa_cache *keeper = test_keeper(0), *other = NULL;
    struct qa_cache_options options = test_options(0);
    char wanted[32];
    snprintf(wanted, sizeof wanted, "process %d keeps", getpid());
    assert_int_equal(qa_cache_open(&options, &other), QALLOW_E_BUSY);
    assert_non_null(strstr(qallow_error_detail(), wanted));
    assert_null(other);
    qa_cache_close(keeper);
    assert_int_equal(qa_cache_open(&options, &other), 0);
    qa_cache_close(other);
}

static void pending_is_shown_and_goes_without_an_epoch(void **state)
{
    struct qa_cache *keeper = test_keeper(0);
    struct qallow_cache *reader = test_reader();
    struct qallow_file file;
    struct qa_file known, same = test_file("a", 1);
    test_put(keeper, "a", 1);
    qa_cache_publish(keeper, 0);
    qa_cache_pending(keeper, "a");
    qa_cache_pending(keeper, "not there");
    assert_int_equal(get(reader, "a", &file), 0);
    assert_int_equal(file.state, QALLOW_FILE_PENDING);
    assert_int_equal(qa_cache_get(keeper, "a", &known), 1);
    assert_int_equal(known.state, QALLOW_FILE_PENDING);
    assert_int_equal(qa_cache_publish(keeper, 0), 1);
    assert_int_equal(qa_cache_put(keeper, "a", &same, NULL), 0);
    assert_int_equal(get(reader, "a", &file), 0);
    assert_int_equal(file.state, QALLOW_FILE_CURRENT);
    assert_int_equal(qa_cache_publish(keeper, 0), 1);
    qallow_cache_close(reader);
    qa_cache_close(keeper);
}

/* What a log has to have seen, too, and what is no news to it. */
static void what_is_pressing(void **state)
{
    struct qa_cache *keeper = test_keeper(0);
    struct qa_file file = test_file("a", 1);
    struct qa_file blind = {
        .kind = QALLOW_FILE_REGULAR, .inode = 7, .state = QALLOW_FILE_UNREADABLE};
    assert_int_equal(qa_cache_pressing(keeper), 0);
    assert_int_equal(qa_cache_put(keeper, "a", &file, NULL), 1);
    assert_int_equal(qa_cache_put(keeper, "blind", &blind, NULL), 1);
    assert_int_equal(qa_cache_pressing(keeper), 2);
    qa_cache_publish(keeper, 0);
    assert_int_equal(qa_cache_pressing(keeper), 0);
    file.inode++;
    blind.size += 10;
    blind.mtime_ns += 10;
    assert_int_equal(qa_cache_put(keeper, "a", &file, NULL), 1);
    assert_int_equal(qa_cache_put(keeper, "blind", &blind, NULL), 1);
    assert_int_equal(qa_cache_put(keeper, "a", &file, NULL), 0);
    assert_int_equal(qa_cache_pressing(keeper), 0);
    file.mtime_ns++;
    assert_int_equal(qa_cache_put(keeper, "a", &file, NULL), 1);
    assert_int_equal(qa_cache_pressing(keeper), 1);
    blind.mode = 0600;
    assert_int_equal(qa_cache_put(keeper, "blind", &blind, NULL), 1);
    assert_int_equal(qa_cache_pressing(keeper), 2);
    assert_int_equal(qa_cache_remove(keeper, "a"), 1);
    assert_int_equal(qa_cache_remove(keeper, "a"), 0);
    assert_int_equal(qa_cache_pressing(keeper), 3);
    qa_cache_close(keeper);
    keeper = test_keeper(0); /* what the one before could not publish */
    assert_true(qa_cache_pressing(keeper) > 0);
    qa_cache_close(keeper);
}

/* A reader that still looks at a block which is given up must see that, whatever comes after. */
static void blocks_that_are_given_up_say_so(void **state)
{
    struct qa_cache *keeper = test_keeper(0);
    uint64_t hash = qa_path_hash(keeper->header->seed, "a", 1), content;
    uint8_t bytes[100] = {0};
    struct qa_file file = test_file("a", 100);
    assert_int_equal(qa_cache_put(keeper, "a", &file, bytes), 1);
    struct qa_entry *first = qa_entry_at(keeper, qa_table_find(keeper, hash, "a", 1));
    content = qa_load(&first->content);
    uint64_t generation = qa_load(&first->generation);
    assert_true(content != 0 && generation != 0);
    test_put(keeper, "a", 2);
    struct qa_entry *second = qa_entry_at(keeper, qa_table_find(keeper, hash, "a", 1));
    assert_ptr_not_equal(first, second);
    assert_int_equal(qa_load(&first->generation), 0);
    assert_int_equal(qa_load(&first->content), 0);
    assert_int_equal(qa_cache_remove(keeper, "a"), 1);
    assert_int_equal(qa_load(&second->generation), 0);
    /* Its next use is another one. */
    test_put(keeper, "a", 3);
    second = qa_entry_at(keeper, qa_table_find(keeper, hash, "a", 1));
    assert_true(qa_load(&second->generation) > generation);
    qa_cache_close(keeper);
    keeper = test_keeper(0);
    test_put(keeper, "b", 1);
    hash = qa_path_hash(keeper->header->seed, "b", 1);
    first = qa_entry_at(keeper, qa_table_find(keeper, hash, "b", 1));
    assert_true(qa_load(&first->generation) >> 40 > generation >> 40);
    qa_cache_close(keeper);
}

static void unusual_files(void **state)
{
    struct qa_cache *keeper = test_keeper(0);
    struct qallow_cache *reader = test_reader();
    struct qallow_file file;
    struct qa_file put = test_file("x", 1), none = {.kind = QALLOW_FILE_REGULAR};
    none.state = QALLOW_FILE_UNREADABLE;
    assert_int_equal(qa_cache_put(keeper, "x", &none, NULL), 1);
    assert_int_equal(qallow_cache_get(reader, "x", &file), 0);
    assert_int_equal(file.state, QALLOW_FILE_UNREADABLE);
    assert_int_equal(file.has_content, 0);
    none.size = put.size = UINT64_MAX;
    assert_int_equal(qa_cache_put(keeper, "x", &put, NULL), 1);
    assert_int_equal(qallow_cache_get(reader, "x", &file), 0);
    assert_true(file.size == UINT64_MAX);
    put.mode = 0100000 | 07755; /* as in st_mode */
    assert_int_equal(qa_cache_put(keeper, "x", &put, NULL), 1);
    assert_int_equal(qallow_cache_get(reader, "x", &file), 0);
    assert_int_equal(file.mode, 07755);
    /* names at the limit */
    char *name = calloc(1, QA_CACHE_PATH + 2);
    memset(name, 'n', QA_CACHE_PATH);
    assert_int_equal(qa_cache_put(keeper, name, &put, NULL), 1);
    assert_int_equal(qallow_cache_get(reader, name, &file), 0);
    assert_int_equal(qa_cache_remove(keeper, name), 1);
    name[QA_CACHE_PATH] = 'n';
    assert_int_equal(qallow_cache_get(reader, name, &file), QALLOW_E_PAGE_NOT_FOUND);
    assert_int_equal(qa_cache_put(keeper, name, &put, NULL), QALLOW_E_LIMIT);
    assert_int_equal(qa_cache_put(keeper, "", &put, NULL), QALLOW_E_LIMIT);
    free(name);
    qallow_cache_close(reader);
    qa_cache_close(keeper);
}

static void content_is_kept(void **state)
{
    struct qa_cache *keeper = test_keeper(0);
    struct qallow_cache *reader = test_reader();
    struct qallow_file file;
    uint8_t bytes[5000], copy[5000];
    for (uint64_t version = 0; version < 40; version++) {
        struct qa_file put = test_file("c", version);
        test_content("c", version, bytes, put.size);
        assert_int_equal(qa_cache_put(keeper, "c", &put, bytes), 1);
        memset(copy, 0xee, sizeof copy);
        assert_int_equal(qallow_cache_content(reader, "c", copy, sizeof copy, &file), 0);
        assert_int_equal(file.has_content, 1);
        assert_int_equal(file.size, version);
        assert_memory_equal(copy, bytes, version);
        assert_int_equal(copy[version], 0xee);
        memset(copy, 0xee, sizeof copy);
        assert_int_equal(qallow_cache_content(reader, "c", copy, 3, &file), 0);
        assert_memory_equal(copy, bytes, version < 3 ? version : 3);
        assert_int_equal(copy[3], 0xee);
        assert_int_equal(qallow_cache_content(reader, "c", NULL, 0, &file), 0);
    }
    test_put(keeper, "without", 4);
    assert_int_equal(qallow_cache_content(reader, "without", copy, 9, &file), QALLOW_E_UNAVAILABLE);
    assert_int_equal(file.size, 4);
    /* It may come later, which is no change. */
    struct qa_file same = test_file("without", 4);
    assert_int_equal(qa_cache_publish(keeper, 0), 1);
    assert_int_equal(qa_cache_put(keeper, "without", &same, bytes), 0);
    assert_int_equal(qa_cache_publish(keeper, 0), 1);
    assert_int_equal(qallow_cache_content(reader, "without", copy, 9, &file), 0);
    assert_memory_equal(copy, bytes, 4);
    assert_int_equal(file.epoch, 1);
    assert_int_equal(qallow_cache_content(reader, "none", copy, 9, &file), QALLOW_E_PAGE_NOT_FOUND);
    qallow_cache_close(reader);
    qa_cache_close(keeper);
}

/* There is room for a part of the contents only: the oldest go, the entries stay. */
static void old_content_gives_way(void **state)
{
    enum { FILES = 400, SIZE = 4000 };
    struct qa_cache *keeper = test_keeper(1 << 20);
    struct qallow_cache *reader = test_reader();
    struct qallow_file file;
    uint8_t bytes[SIZE], copy[SIZE];
    char name[20];
    unsigned held = 0, first = FILES;
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "%u", i);
        struct qa_file put = test_file(name, SIZE);
        test_content(name, i, bytes, SIZE);
        assert_int_equal(qa_cache_put(keeper, name, &put, bytes), 1);
        assert_int_equal(qallow_cache_content(reader, name, copy, SIZE, &file), 0);
    }
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "%u", i);
        int result = qallow_cache_content(reader, name, copy, SIZE, &file);
        assert_int_equal(file.size, SIZE);
        assert_int_equal(file.has_content, result == 0);
        if (result != 0)
            continue;
        test_content(name, i, bytes, SIZE);
        assert_memory_equal(copy, bytes, SIZE);
        held++;
        first = i < first ? i : first;
    }
    assert_in_range(held, 150, 260);
    assert_int_equal(first, FILES - held); /* the newest ones */
    assert_in_range(test_info(reader).memory, 1 << 19, 1 << 20);
    struct qa_file large = test_file("large", 1);
    large.size = 1 << 19; /* more than a quarter of what there is: not at the others' cost */
    uint8_t *zeros = calloc(1, large.size);
    assert_int_equal(qa_cache_put(keeper, "large", &large, zeros), 1);
    assert_int_equal(qallow_cache_content(reader, "large", copy, SIZE, &file),
                     QALLOW_E_UNAVAILABLE);
    assert_int_equal(qallow_cache_content(reader, "399", copy, SIZE, &file), 0);
    free(zeros);
    qallow_cache_close(reader);
    qa_cache_close(keeper);
    keeper = test_keeper(1 << 20); /* a successor can give it up as well */
    assert_string_equal(test_notices, "");
    for (unsigned i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "more%u", i);
        test_put(keeper, name, i + 1);
    }
    assert_int_equal(qa_cache_count(keeper), FILES + 1 + 3000);
    qa_cache_close(keeper);
}

static void a_full_cache_says_so(void **state)
{
    struct qa_cache *keeper = test_keeper(256 << 10);
    struct qallow_cache *reader = test_reader();
    struct qallow_file file;
    char name[20];
    unsigned fit = 0, refused = 0;
    for (unsigned i = 0; i < 4000; i++) {
        snprintf(name, sizeof name, "%u", i);
        struct qa_file put = test_file(name, i + 1);
        int result = qa_cache_put(keeper, name, &put, NULL);
        assert_true(result == 1 || result == QALLOW_E_LIMIT);
        fit += result == 1;
        refused += result != 1;
        assert_int_equal(get(reader, name, &file), result == 1 ? 0 : QALLOW_E_LIMIT);
    }
    assert_in_range(fit, 800, 2000);
    assert_int_equal(test_info(reader).refused, refused);
    assert_int_equal(test_info(reader).files, fit);
    assert_int_equal(qa_cache_count(keeper), fit);
    assert_in_range(test_info(reader).memory, 200 << 10, 256 << 10);
    /* What there is can change, or go, but never stay as it was. */
    for (unsigned i = 0; i < 4000; i++) {
        snprintf(name, sizeof name, "%u", i);
        struct qa_file put = test_file(name, i + 10000);
        int result = qa_cache_put(keeper, name, &put, NULL);
        int found = get(reader, name, &file);
        assert_int_equal(found, result == 1 ? 0 : QALLOW_E_LIMIT);
        if (found == 0)
            assert_int_equal(file.inode, i + 10000);
    }
    qa_cache_publish(keeper, 0);
    /* With most of it gone there is room again, and a walk finds out that nothing is missing. */
    qa_cache_begin_walk(keeper);
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "%u", i);
        struct qa_file put = test_file(name, i + 20000);
        qa_cache_put(keeper, name, &put, NULL);
    }
    qa_cache_sweep(keeper);
    qa_cache_begin_walk(keeper);
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "%u", i);
        struct qa_file put = test_file(name, i + 20000);
        assert_true(qa_cache_put(keeper, name, &put, NULL) >= 0);
    }
    qa_cache_sweep(keeper);
    assert_int_equal(test_info(reader).refused, 0);
    assert_int_equal(test_info(reader).files, 100);
    assert_int_equal(get(reader, "101", &file), QALLOW_E_PAGE_NOT_FOUND);
    qallow_cache_close(reader);
    qa_cache_close(keeper);
}

/* --- waiting --- */

struct publisher {
    struct qa_cache *keeper;
    struct qallow_cache *reader;
};

/* Publishes once the reader sleeps, or just so. */
static void *publish_one(void *context)
{
    struct publisher *publisher = context;
    struct qa_file file = test_file("w", 1 + qa_cache_epoch(publisher->keeper));
    assert_int_equal(qa_cache_put(publisher->keeper, "w", &file, NULL), 1);
    qa_cache_publish(publisher->keeper, 0);
    return NULL;
}

static void waiting_for_an_epoch(void **state)
{
    struct publisher publisher = {test_keeper(0), NULL};
    struct qallow_cache *reader = test_reader();
    uint64_t now = 0;
    assert_int_equal(qallow_cache_wait(reader, 0, 0, 0, &now), QALLOW_E_BUSY);
    assert_int_equal(qallow_cache_wait(reader, 0, 1000000, 0, &now), QALLOW_E_BUSY);
    assert_int_equal(qallow_cache_wait(reader, 0, 1000000, 500000, &now), QALLOW_E_BUSY);
    assert_int_equal(now, 0);
    for (uint64_t epoch = 0; epoch < 200; epoch++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, publish_one, &publisher), 0);
        assert_int_equal(qallow_cache_wait(reader, epoch, -1, epoch % 2 ? 100000 : 0, &now), 0);
        assert_int_equal(now, epoch + 1);
        pthread_join(thread, NULL);
    }
    assert_int_equal(qallow_cache_wait(reader, 17, -1, 0, NULL), 0); /* long past */
    assert_int_equal(qallow_cache_wait(reader, 0, 0, UINT64_MAX, NULL), 0);
    qa_cache_close(publisher.keeper);
    assert_int_equal(qallow_cache_wait(reader, 200, -1, 0, &now), QALLOW_E_UNAVAILABLE);
    assert_int_equal(qallow_cache_wait(reader, 199, -1, 0, &now), 0);
    qallow_cache_close(reader);
}

static void *wait_without_end(void *context)
{
    uint64_t now;
    struct publisher *publisher = context;
    return (void *)(intptr_t)qallow_cache_wait(publisher->reader, qa_cache_epoch(publisher->keeper),
                                               -1, 0, &now);
}

/* A keeper that goes, or gives its segment up, wakes who waits. */
static void waiting_ends_with_the_keeper(void **state)
{
    for (int i = 0; i < 20; i++) {
        struct publisher publisher = {test_keeper(0), test_reader()};
        pthread_t thread;
        void *result;
        assert_int_equal(pthread_create(&thread, NULL, wait_without_end, &publisher), 0);
        if (i % 2) {
            qa_store32(&publisher.keeper->header->superseded, 1);
            qa_segment_wake(&publisher.keeper->header->futex);
        } else {
            /* The thread reads the epoch of the keeper first. */
            while (atomic_load(&publisher.reader->header->futex) == UINT32_MAX)
                sched_yield();
            qa_store32(&publisher.keeper->header->state, QALLOW_KEEPER_GONE);
            qa_segment_wake(&publisher.keeper->header->futex);
        }
        pthread_join(thread, &result);
        assert_int_equal((int)(intptr_t)result, i % 2 ? QALLOW_E_STATE : QALLOW_E_UNAVAILABLE);
        qallow_cache_close(publisher.reader);
        qa_cache_close(publisher.keeper);
    }
}

static void on_signal(int number) {}

struct interrupted {
    pthread_t waiter;
    atomic_int is_over;
};

static void *interrupt(void *context)
{
    struct interrupted *interrupted = context;
    while (!atomic_load(&interrupted->is_over) && !pthread_kill(interrupted->waiter, SIGUSR1))
        sched_yield();
    return NULL;
}

static void waiting_ends_with_a_signal(void **state)
{
    struct qa_cache *keeper = test_keeper(0);
    struct qallow_cache *reader = test_reader();
    struct sigaction action = {.sa_handler = on_signal}, old;
    struct interrupted shared = {pthread_self(), 0};
    pthread_t thread;
    sigaction(SIGUSR1, &action, &old);
    assert_int_equal(pthread_create(&thread, NULL, interrupt, &shared), 0);
    assert_int_equal(qallow_cache_wait(reader, 0, -1, 0, NULL), QALLOW_E_INTERRUPTED);
    atomic_store(&shared.is_over, 1);
    pthread_join(thread, NULL);
    sigaction(SIGUSR1, &old, NULL);
    qallow_cache_close(reader);
    qa_cache_close(keeper);
}

/* --- numbers --- */

static void look_ups_are_counted(void **state)
{
    struct qa_cache *keeper = test_keeper(0);
    struct qallow_cache *reader = test_reader(), *other = test_reader();
    struct qa_cache_usage usage;
    struct qallow_file file;
    uint64_t numbers[5] = {5, 4, 3, 2, 1}, read[6] = {0};
    test_put(keeper, "a", 3);
    for (int i = 0; i < 3000; i++)
        assert_int_equal(get(reader, "a", &file), 0);
    for (int i = 0; i < 7; i++)
        assert_int_equal(get(other, "b", &file), QALLOW_E_PAGE_NOT_FOUND);
    qallow_cache_close(other);
    struct qallow_cache_info info = test_info(reader);
    assert_int_equal(info.hits, 3000);
    assert_int_equal(info.misses, 7);
    qa_cache_usage(keeper, &usage);
    assert_int_equal(usage.hits, 3000);
    assert_int_equal(usage.misses, 7);
    assert_int_equal(usage.bytes, 3);
    assert_int_equal(usage.memory, info.memory);
    qa_cache_set_numbers(keeper, numbers, 5);
    assert_int_equal(qa_cache_numbers(reader, read, 6), 6);
    assert_memory_equal(read, numbers, sizeof numbers);
    assert_int_equal(read[5], 0);
    qa_cache_close(keeper);
    /* They outlive the keeper; and who may not count can still read. */
    char path[QA_SEGMENT_PATH + 10];
    snprintf(path, sizeof path, "%s.readers", qa_cache_reader_path(reader));
    assert_int_equal(test_info(reader).hits, 3000);
    assert_int_equal(unlink(path), 0);
    other = test_reader();
    assert_int_equal(get(other, "a", &file), 0);
    assert_int_equal(test_info(other).hits, 0);
    qallow_cache_close(other);
    qallow_cache_close(reader);
}

static int stop_at_second(void *context, const char *path, const struct qallow_file *file)
{
    return ++*(int *)context == 2 ? 77 : 0;
}

static void a_visit_can_end_the_list(void **state)
{
    struct qa_cache *keeper = test_keeper(0);
    struct qallow_cache *reader = test_reader();
    int visits = 0;
    test_put(keeper, "a", 1);
    test_put(keeper, "b", 1);
    test_put(keeper, "c", 1);
    qa_cache_publish(keeper, 0);
    assert_int_equal(qallow_cache_since(reader, 0, stop_at_second, &visits, NULL), 77);
    assert_int_equal(visits, 2);
    visits = 0;
    assert_int_equal(qallow_cache_each(reader, stop_at_second, &visits, NULL), 77);
    assert_int_equal(visits, 2);
    qallow_cache_close(reader);
    qa_cache_close(keeper);
}

static int note_path(void *context, const char *path)
{
    char *list = context;
    size_t length = strlen(list);
    snprintf(list + length, 200 - length, "%s ", path);
    return strcmp(path, "stop") == 0 ? 5 : 0;
}

static void paths_below_a_directory(void **state)
{
    struct qa_cache *keeper = test_keeper(0);
    static const char *const paths[] = {"a/b", "a/c/d", "ab", "a.c", "b/a/b"};
    char list[200];
    for (int i = 0; i < 5; i++)
        test_put(keeper, paths[i], 1);
    test_put(keeper, "a/gone", 1);
    qa_cache_remove(keeper, "a/gone");
    list[0] = '\0';
    assert_int_equal(qa_cache_below(keeper, "a", 1, note_path, list), 0);
    assert_string_equal(list, "a/b ");
    list[0] = '\0';
    assert_int_equal(qa_cache_below(keeper, "a", 0, note_path, list), 0);
    assert_int_equal(strlen(list), strlen("a/b a/c/d "));
    assert_non_null(strstr(list, "a/c/d "));
    list[0] = '\0';
    assert_int_equal(qa_cache_below(keeper, "", 1, note_path, list), 0);
    assert_int_equal(strlen(list), strlen("ab a.c "));
    list[0] = '\0';
    assert_int_equal(qa_cache_below(keeper, "", 0, note_path, list), 0);
    assert_int_equal(strlen(list), strlen("a/b a/c/d ab a.c b/a/b "));
    test_put(keeper, "stop", 1);
    assert_int_equal(qa_cache_below(keeper, "", 1, note_path, list), 5);
    qa_cache_close(keeper);
}

static void sha256_has_32_bytes(void **state)
{
    struct qa_cache_options options = test_options(0);
    struct qa_cache *keeper = test_keeper(0);
    struct qallow_file file;
    qa_cache_close(keeper);
    options.hash = QALLOW_HASH_SHA256;
    assert_int_equal(qa_cache_open(&options, &keeper), 0);
    assert_non_null(strstr(test_notices, "other hashes"));
    struct qallow_cache *reader = test_reader();
    struct qa_file put = test_file("s", 1);
    for (int i = 0; i < 32; i++)
        put.hash[i] = (uint8_t)(200 + i);
    assert_int_equal(qa_cache_put(keeper, "s", &put, NULL), 1);
    assert_int_equal(qallow_cache_get(reader, "s", &file), 0);
    assert_memory_equal(file.hash, put.hash, 32);
    put.hash[31]++;
    assert_int_equal(qa_cache_put(keeper, "s", &put, NULL), 1);
    assert_int_equal(test_info(reader).hash_bytes, 32);
    qallow_cache_close(reader);
    qa_cache_close(keeper);
}

/* --- without memory --- */

static unsigned long fail_at;
static int fail_later(size_t size) { return fail_at && --fail_at == 0; }

static void allocations_may_fail(void **state)
{
    for (unsigned long n = 1; n < 60; n++) {
        struct qa_cache *keeper = NULL;
        struct qallow_cache *reader = NULL;
        struct qa_cache_options options = test_options(0);
        char name[20], bytes[100] = "content";
        struct qallow_file file;
        fail_at = n;
        qr_set_allocation_hook(fail_later);
        int result = qa_cache_open(&options, &keeper);
        assert_true(result == 0 || result == QALLOW_E_NO_MEMORY);
        for (unsigned i = 0; result == 0 && i < 1000; i++) {
            snprintf(name, sizeof name, "%u", i);
            struct qa_file put = test_file(name, 1 + n);
            put.size = sizeof bytes;
            int done = qa_cache_put(keeper, name, &put, bytes);
            assert_true(done == 1 || done == 0 || done == QALLOW_E_LIMIT);
        }
        qr_set_allocation_hook(NULL);
        if (result == 0) {
            reader = test_reader();
            assert_int_equal(qallow_cache_get(reader, "999", &file), 0);
            qallow_cache_close(reader);
        }
        qa_cache_close(keeper);
    }
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, test_make_place, test_remove_place)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(an_empty_cache_is_small),
        CASE(states_are_seen),
        CASE(one_keeper_for_a_directory),
        CASE(pending_is_shown_and_goes_without_an_epoch),
        CASE(what_is_pressing),
        CASE(blocks_that_are_given_up_say_so),
        CASE(unusual_files),
        CASE(content_is_kept),
        CASE(old_content_gives_way),
        CASE(a_full_cache_says_so),
        CASE(waiting_for_an_epoch),
        CASE(waiting_ends_with_the_keeper),
        CASE(waiting_ends_with_a_signal),
        CASE(look_ups_are_counted),
        CASE(a_visit_can_end_the_list),
        CASE(paths_below_a_directory),
        CASE(sha256_has_32_bytes),
        CASE(allocations_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
