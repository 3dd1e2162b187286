/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers beside a keeper: threads on the keeper's own mapping (so that the thread sanitizer sees
 * both sides of the same memory) while the cache grows, shrinks and gives content up; and processes
 * that live through keepers killed at any point, and are killed themselves.
 *
 * What is done in epoch e follows from e alone, so that the state after each epoch is known, by
 * whichever keeper it was done.
 */
#include "tests/accelerator/cache_support.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "tests/accelerator/seed.h"

enum {
    STABLE = 300, /* paths that are never removed */
    FLEETING = 200,
    PATHS = STABLE + FLEETING,
    CHANGES = 20, /* in an epoch */
};

struct shared {
    _Atomic uint64_t acknowledged; /* published, and that was noted */
    _Atomic int is_over, has_failed;
    _Atomic uint64_t rounds[4]; /* of the readers */
    uint64_t salt;
};

static struct shared *shared;

/* QALLOW_ROUNDS: as many rounds, and a hundred times as many files. */
static uint64_t test_rounds(uint64_t usual)
{
    const char *given = getenv("QALLOW_ROUNDS");
    return given ? strtoull(given, NULL, 10) : usual;
}

/* --- what is done --- */

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = (a + shared->salt) * 0x9e3779b97f4a7c15 ^ (b + 1) * 0xc2b2ae3d27d4eb4f;
    x ^= x >> 29;
    return x * 0x165667b19e3779f9 >> 7;
}

static void name_of(unsigned number, char name[64])
{
    snprintf(name, 64, "%s/%.*s%u", number < STABLE ? "stable" : "fleeting", (int)(number % 40),
             "a-name-that-is-longer-for-some-than-others", number);
}

/* The path that the k-th change of an epoch is about, and its new version (0: removed). */
static unsigned change(uint64_t epoch, unsigned k, uint64_t *version)
{
    uint64_t draw = mix(epoch, k);
    unsigned number = (unsigned)(draw % PATHS);
    *version = number >= STABLE && draw / PATHS % 3 == 0 ? 0 : epoch * CHANGES + k + 1;
    return number;
}

static uint64_t epoch_of(uint64_t version) { return version ? (version - 1) / CHANGES : 0; }

static void do_epoch(struct qa_cache *keeper, uint64_t epoch)
{
    char name[64];
    uint8_t bytes[5000];
    for (unsigned k = 0; k < CHANGES; k++) {
        uint64_t version;
        name_of(change(epoch, k, &version), name);
        struct qa_file file = test_file(name, version);
        if (version % 4 == 1)
            qa_cache_pending(keeper, name);
        if (version % 3 == 1)
            test_content(name, version, bytes, file.size);
        if (version)
            assert_true(qa_cache_put(keeper, name, &file, version % 3 == 1 ? bytes : NULL) >= 0);
        else
            qa_cache_remove(keeper, name);
    }
}

/* Puts all paths that are never removed, as the first epoch. */
static void do_first_epoch(struct qa_cache *keeper)
{
    char name[64];
    for (unsigned i = 0; i < STABLE; i++) {
        name_of(i, name);
        struct qa_file file = test_file(name, 1);
        assert_int_equal(qa_cache_put(keeper, name, &file, NULL), 1);
    }
    assert_int_equal(qa_cache_publish(keeper, 0), 1);
}

struct state {
    uint64_t version[PATHS], epoch[PATHS];
};

/* The state after an epoch. */
static void model(uint64_t newest, struct state *state)
{
    memset(state, 0, sizeof *state);
    for (unsigned i = 0; i < STABLE; i++)
        state->version[i] = state->epoch[i] = 1;
    for (uint64_t epoch = 2; epoch <= newest; epoch++)
        for (unsigned k = 0; k < CHANGES; k++) {
            uint64_t version;
            unsigned number = change(epoch, k, &version);
            if (version || state->version[number])
                state->epoch[number] = epoch;
            state->version[number] = version;
        }
}

/* --- a reader that believes nothing --- */

struct reader {
    struct qallow_cache *cache;
    unsigned number;
    _Atomic int has_failed;
    uint64_t seen[PATHS];   /* the newest version that was seen */
    uint64_t mirror[PATHS]; /* the versions, kept with qallow_cache_since() */
    uint8_t visited[PATHS];
    uint64_t now; /* of the mirror */
    uint64_t draws, other;
};

#define CHECK(reader, condition)                                                                   \
    do                                                                                             \
        if (!(condition) && !(reader)->has_failed) {                                               \
            fprintf(stderr, "%s:%d: reader %u: %s (%s)\n", __FILE__, __LINE__, (reader)->number,   \
                    #condition, qallow_error_detail());                                            \
            (reader)->has_failed = 1;                                                              \
            atomic_store(&shared->has_failed, 1);                                                  \
        }                                                                                          \
    while (0)

static void check_get(struct reader *reader, unsigned number, uint64_t least)
{
    char name[64];
    uint8_t bytes[5000], wanted[5000];
    struct qallow_file file;
    name_of(number, name);
    int result = reader->draws % 2 ? qallow_cache_get(reader->cache, name, &file)
                                   : qallow_cache_content(reader->cache, name, bytes, 5000, &file);
    if (result == QALLOW_E_PAGE_NOT_FOUND && number >= STABLE)
        return;
    CHECK(reader, result == 0 || (result == QALLOW_E_UNAVAILABLE && reader->draws % 2 == 0));
    CHECK(reader, test_is_consistent(name, &file));
    /* Within an epoch a successor may begin anew. */
    CHECK(reader, epoch_of(file.inode) >= epoch_of(reader->seen[number]) && file.inode >= least);
    reader->seen[number] = file.inode;
    if (result == 0 && reader->draws % 2 == 0) {
        test_content(name, file.inode, wanted, file.size);
        CHECK(reader, memcmp(bytes, wanted, file.size) == 0);
    }
}

/* Who has seen an epoch sees what belongs to it. */
static void check_epoch(struct reader *reader)
{
    uint64_t epoch = qallow_cache_epoch(reader->cache);
    if (epoch < 2)
        return;
    for (unsigned k = 0; k < CHANGES; k++) {
        uint64_t version;
        unsigned number = change(epoch, k, &version);
        if (number < STABLE)
            check_get(reader, number, version);
    }
}

static int visit(void *context, const char *path, const struct qallow_file *file)
{
    struct reader *reader = context;
    char name[64];
    if (strncmp(path, "filler", 6) == 0) {
        reader->other++;
        return 0;
    }
    const char *digits = path + strlen(path);
    while (digits[-1] >= '0' && digits[-1] <= '9')
        digits--;
    unsigned number = (unsigned)strtoul(digits, NULL, 10) % PATHS;
    name_of(number, name);
    CHECK(reader, strcmp(name, path) == 0);
    CHECK(reader, !reader->visited[number]);
    CHECK(reader, file->removed || test_is_consistent(path, file));
    struct qallow_file again; /* which may make the reader notice a new table */
    int result = qallow_cache_get(reader->cache, path, &again);
    CHECK(reader, result == 0 || (result == QALLOW_E_PAGE_NOT_FOUND && number >= STABLE));
    reader->visited[number] = 1;
    reader->mirror[number] = file->removed ? 0 : file->inode;
    return 0;
}

static void check_each(struct reader *reader)
{
    memset(reader->visited, 0, sizeof reader->visited);
    memset(reader->mirror, 0, sizeof reader->mirror);
    int result = qallow_cache_each(reader->cache, visit, reader, &reader->now);
    CHECK(reader, result == 0);
    for (unsigned i = 0; i < STABLE; i++)
        CHECK(reader, reader->visited[i]);
}

static void check_since(struct reader *reader)
{
    memset(reader->visited, 0, sizeof reader->visited);
    int result = qallow_cache_since(reader->cache, reader->now, visit, reader, &reader->now);
    CHECK(reader, result == 0 || result == QALLOW_E_EPOCH_NOT_FOUND);
    if (result == QALLOW_E_EPOCH_NOT_FOUND)
        check_each(reader);
}

static void read_once(struct reader *reader)
{
    reader->draws = reader->draws * 6364136223846793005u + 1442695040888963407u;
    switch (reader->draws >> 60) {
    case 0:
        check_since(reader);
        break;
    case 1:
        if (reader->draws >> 54 & 1)
            check_each(reader);
        break;
    case 2:
    case 3:
        check_epoch(reader);
        break;
    default:
        for (unsigned i = 0; i < 20; i++) {
            reader->draws = reader->draws * 6364136223846793005u + 1442695040888963407u;
            check_get(reader, (unsigned)(reader->draws >> 33) % PATHS, 0);
        }
    }
    atomic_fetch_add(&shared->rounds[reader->number % 4], 1);
}

/* At the end, when nothing changes any more: the mirror is the state. */
static void check_mirror(struct reader *reader)
{
    struct state *state = malloc(sizeof *state);
    check_since(reader);
    CHECK(reader, reader->now == shared->acknowledged);
    model(reader->now, state);
    for (unsigned i = 0; i < PATHS; i++)
        CHECK(reader, reader->mirror[i] == state->version[i]);
    free(state);
}

static void *read_until_over(void *context)
{
    struct reader *reader = context;
    reader->draws = mix(reader->number, 77);
    check_each(reader);
    while (!atomic_load(&shared->is_over) && !reader->has_failed)
        read_once(reader);
    if (!reader->has_failed)
        check_mirror(reader);
    return NULL;
}

static int make_shared(void **state)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return -1;
    shared->salt = test_seed();
    return test_make_place(state);
}

static int remove_shared(void **state)
{
    munmap(shared, sizeof *shared);
    return test_remove_place(state);
}

/* --- threads --- */

static void one_step(struct qa_cache *keeper, uint64_t epoch, uint64_t files)
{
    char name[64];
    for (uint64_t i = (epoch - 2) * files; i < (epoch - 1) * files; i++) {
        snprintf(name, sizeof name, "filler/%llu", (unsigned long long)i);
        struct qa_file file = test_file(name, i + 1);
        assert_int_equal(qa_cache_put(keeper, name, &file, NULL), 1);
    }
    do_epoch(keeper, epoch);
    assert_int_equal(qa_cache_publish(keeper, 0), epoch);
    atomic_store(&shared->acknowledged, epoch);
}

/* From a few files to many, and back to the few: the readers must find all they should on the way,
 * the content being given up now and then for want of room. */
static void threads_read_while_it_grows(void **state)
{
    uint64_t files = test_rounds(1000), epochs = 100;
    struct qa_cache *keeper = test_keeper(files * 25000);
    struct reader readers[3];
    pthread_t threads[3];
    int failed = 0;
    memset(readers, 0, sizeof readers);
    do_first_epoch(keeper);
    atomic_store(&shared->acknowledged, 1);
    for (unsigned i = 0; i < 3; i++) {
        readers[i].number = i;
        assert_int_equal(qa_cache_reader_attach(keeper, &readers[i].cache), 0);
        assert_int_equal(pthread_create(&threads[i], NULL, read_until_over, &readers[i]), 0);
    }
    for (uint64_t epoch = 2; epoch < 2 + epochs; epoch++)
        one_step(keeper, epoch, files);
    assert_int_equal(qa_cache_count(keeper) / files, epochs);
    qa_cache_begin_walk(keeper);
    char name[64];
    for (unsigned i = 0; i < PATHS; i++) {
        name_of(i, name);
        qa_cache_see(keeper, name);
    }
    assert_int_equal(qa_cache_sweep(keeper), files * epochs);
    for (uint64_t epoch = 2 + epochs; epoch < 2 + 2 * epochs; epoch++)
        one_step(keeper, epoch, 0);
    /* Each reader has had its turn. */
    for (unsigned i = 0; i < 3; i++)
        while (atomic_load(&shared->rounds[i]) < 20 && !readers[i].has_failed)
            sched_yield();
    atomic_store(&shared->is_over, 1);
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        failed += readers[i].has_failed;
        qallow_cache_close(readers[i].cache);
    }
    qa_cache_close(keeper);
    assert_int_equal(failed, 0);
}

/* --- processes --- */

/* A child that does not outlive a test that fails. */
static pid_t start_child(void)
{
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return child;
}

static pid_t start_reader(unsigned number)
{
    pid_t child = start_child();
    if (child > 0)
        return child;
    struct reader *reader = calloc(1, sizeof *reader);
    reader->number = number;
    if (qallow_cache_open(test_tree, &reader->cache) != 0)
        _exit(2);
    read_until_over(reader);
    _exit(reader->has_failed);
}

static pid_t start_keeper(void)
{
    pid_t child = start_child();
    if (child > 0)
        return child;
    struct qa_cache *keeper = test_keeper(1 << 20);
    for (uint64_t epoch = qa_cache_epoch(keeper) + 1;; epoch++) {
        do_epoch(keeper, epoch);
        qa_cache_publish(keeper, 0);
        atomic_store(&shared->acknowledged, epoch);
    }
}

static void stop(pid_t child, int number)
{
    int status;
    if (number)
        assert_int_equal(kill(child, number), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (number)
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == number);
    else
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

struct expected {
    const struct state *state;
    uint64_t since;
    unsigned count;
};

static int expect(void *context, const char *path, const struct qallow_file *file)
{
    struct expected *expected = context;
    const char *digits = path + strlen(path);
    while (digits[-1] >= '0' && digits[-1] <= '9')
        digits--;
    unsigned long number = strtoul(digits, NULL, 10);
    assert_in_range(number, 0, PATHS - 1);
    assert_int_equal(file->epoch, expected->state->epoch[number]);
    assert_int_equal(file->removed, expected->state->version[number] == 0);
    assert_true(file->epoch > expected->since);
    expected->count++;
    return 0;
}

/* A keeper was killed. Its successor finds every epoch that was published, finishes the one that
 * was begun, and the whole is what it should be. */
static void take_over_and_check(uint64_t acknowledged, struct state *state)
{
    struct qa_cache *keeper = test_keeper(1 << 20);
    struct qallow_cache *reader = test_reader();
    struct qallow_cache_info info = QALLOW_CACHE_INFO_INIT;
    assert_string_equal(test_notices, "");
    uint64_t epoch = qa_cache_epoch(keeper) + 1;
    assert_in_range(epoch, acknowledged + 1, acknowledged + 2);
    do_epoch(keeper, epoch);
    assert_int_equal(qa_cache_publish(keeper, epoch), epoch);
    atomic_store(&shared->acknowledged, epoch);
    model(epoch, state);
    unsigned present = 0;
    for (unsigned i = 0; i < PATHS; i++) {
        char name[64];
        struct qallow_file file;
        name_of(i, name);
        int result = qallow_cache_get(reader, name, &file);
        assert_int_equal(result, state->version[i] ? 0 : QALLOW_E_PAGE_NOT_FOUND);
        if (result == 0)
            assert_int_equal(file.inode, state->version[i]);
        present += result == 0;
    }
    assert_int_equal(qallow_cache_info(reader, &info), 0);
    assert_int_equal(info.files, present);
    uint64_t oldest = info.oldest_epoch > 1 ? info.oldest_epoch : 1;
    for (uint64_t since = epoch - 1; since >= oldest && since + 12 > epoch; since--) {
        struct expected expected = {state, since, 0};
        unsigned changed = 0;
        for (unsigned i = 0; i < PATHS; i++)
            changed += state->epoch[i] > since;
        assert_int_equal(qallow_cache_since(reader, since, expect, &expected, NULL), 0);
        assert_int_equal(expected.count, changed);
    }
    qallow_cache_close(reader);
    qa_cache_close(keeper);
}

static void wait_for(_Atomic uint64_t *number, uint64_t least)
{
    while (atomic_load(number) < least) {
        assert_int_equal(atomic_load(&shared->has_failed), 0);
        sched_yield();
    }
}

static void keepers_and_readers_are_killed(void **state)
{
    unsigned seed = (unsigned)shared->salt, rounds = (unsigned)test_rounds(60);
    struct state *expected = malloc(sizeof *expected);
    struct qa_cache *keeper = test_keeper(1 << 20);
    do_first_epoch(keeper);
    atomic_store(&shared->acknowledged, 1);
    qa_cache_close(keeper);
    pid_t readers[2] = {start_reader(0), start_reader(1)};
    for (unsigned round = 0; round < rounds; round++) {
        uint64_t before = atomic_load(&shared->acknowledged);
        pid_t child = start_keeper();
        wait_for(&shared->acknowledged, before + 1 + (uint64_t)rand_r(&seed) % 20);
        for (volatile int spin = rand_r(&seed) % 20000; spin > 0; spin--) {
        }
        stop(child, SIGKILL);
        take_over_and_check(atomic_load(&shared->acknowledged), expected);
        if (round % 10 == 9) { /* a reader is killed, wherever it is */
            wait_for(&shared->rounds[1], atomic_load(&shared->rounds[1]) + 3);
            stop(readers[1], SIGKILL);
            readers[1] = start_reader(1);
        }
    }
    wait_for(&shared->rounds[0], 20);
    atomic_store(&shared->is_over, 1);
    stop(readers[0], 0);
    stop(readers[1], 0);
    free(expected);
}

/* Who waits for a keeper that was killed is told so, without a wake-up. */
static void waiting_for_a_killed_keeper(void **state)
{
    struct qa_cache *keeper = test_keeper(0);
    do_first_epoch(keeper);
    qa_cache_close(keeper);
    struct qallow_cache *reader = test_reader();
    struct qallow_cache_info info = QALLOW_CACHE_INFO_INIT;
    uint64_t epoch = qallow_cache_epoch(reader), now;
    pid_t child = start_keeper();
    wait_for(&shared->acknowledged, epoch + 1);
    assert_int_equal(kill(child, SIGSTOP), 0);
    /* Stopped is not dead. */
    int status;
    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    epoch = qallow_cache_epoch(reader);
    assert_int_equal(qallow_cache_wait(reader, epoch, 1000000, 0, &now), QALLOW_E_BUSY);
    assert_int_equal(qallow_cache_info(reader, &info), 0);
    assert_int_equal(info.keeper, child);
    assert_int_equal(info.state, QALLOW_KEEPER_STARTING);
    stop(child, SIGKILL);
    assert_int_equal(qallow_cache_wait(reader, qallow_cache_epoch(reader), -1, 0, &now),
                     QALLOW_E_UNAVAILABLE);
    assert_int_equal(qallow_cache_info(reader, &info), 0);
    assert_int_equal(info.keeper, child);
    assert_int_equal(info.state, QALLOW_KEEPER_GONE);
    qallow_cache_close(reader);
}

static void *kill_a_sleeper_s_keeper(void *context)
{
    stop(*(pid_t *)context, SIGKILL);
    return NULL;
}

/* The same when it dies while the reader sleeps. */
static void the_keeper_dies_meanwhile(void **state)
{
    struct qa_cache *keeper = test_keeper(0);
    do_first_epoch(keeper);
    qa_cache_close(keeper);
    struct qallow_cache *reader = test_reader();
    pid_t child = start_keeper();
    pthread_t thread;
    uint64_t now;
    int status;
    wait_for(&shared->acknowledged, 2);
    assert_int_equal(kill(child, SIGSTOP), 0);
    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    assert_int_equal(pthread_create(&thread, NULL, kill_a_sleeper_s_keeper, &child), 0);
    assert_int_equal(qallow_cache_wait(reader, qallow_cache_epoch(reader), -1, 0, &now),
                     QALLOW_E_UNAVAILABLE);
    pthread_join(thread, NULL);
    qallow_cache_close(reader);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, make_shared, remove_shared)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(threads_read_while_it_grows),
        CASE(keepers_and_readers_are_killed),
        CASE(waiting_for_a_killed_keeper),
        CASE(the_keeper_dies_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
