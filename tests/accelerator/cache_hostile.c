/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A segment that is damaged, or was made to do harm: cut off, flipped bits anywhere, offsets and
 * lengths that lie. Readers may give wrong answers or errors, the next keeper takes over what it
 * finds sound or makes a new one; nobody crashes or goes on for ever. To be run with sanitizers,
 * too.
 */
#include "tests/accelerator/cache_support.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>

#include "tests/accelerator/seed.h"

enum { FILES = 200 };

struct victim {
    char path[QA_SEGMENT_PATH];
    uint8_t *sound; /* the bytes of a sound segment */
    size_t size;
};

static void write_segment(const struct victim *victim, const void *bytes, size_t size)
{
    int fd = open(victim->path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), size);
    close(fd);
}

static struct victim make_victim(void)
{
    struct victim victim;
    struct qa_cache *keeper = test_keeper(4 << 20);
    char name[100];
    uint8_t bytes[5000];
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "directory/with/names-%u", i);
        struct qa_file put = test_file(name, i + 1);
        test_content(name, i + 1, bytes, put.size);
        assert_int_equal(qa_cache_put(keeper, name, &put, i % 3 ? NULL : bytes), 1);
        if (i % 10 == 0)
            qa_cache_publish(keeper, 0);
        if (i % 7 == 0)
            qa_cache_remove(keeper, name);
    }
    snprintf(victim.path, sizeof victim.path, "%s", qa_cache_path(keeper));
    victim.size = keeper->size;
    victim.sound = malloc(victim.size);
    memcpy(victim.sound, keeper->header, victim.size);
    qa_cache_close(keeper);
    return victim;
}

/* Callers look names up by these numbers. */
static int is_of_the_interface(const struct qallow_file *file)
{
    return file->kind >= QALLOW_FILE_REGULAR && file->kind <= QALLOW_FILE_SYMLINK &&
           file->state >= QALLOW_FILE_CURRENT && file->state <= QALLOW_FILE_UNREADABLE;
}

static int visit(void *context, const char *path, const struct qallow_file *file)
{
    ++*(uint64_t *)context;
    assert_true(file->removed || is_of_the_interface(file));
    return strlen(path) > QA_CACHE_PATH; /* it ends */
}

/* Everything a reader can do. Results do not matter, but it must return, and soon. */
static void read_all(struct qallow_cache *reader)
{
    struct qallow_cache_info info = QALLOW_CACHE_INFO_INIT;
    struct qallow_file file;
    char name[100], bytes[100];
    uint64_t visits = 0, now;
    for (unsigned i = 0; i < FILES; i += 3) {
        snprintf(name, sizeof name, "directory/with/names-%u", i);
        if (qallow_cache_get(reader, name, &file) == 0)
            assert_true(is_of_the_interface(&file));
        qallow_cache_content(reader, name, bytes, sizeof bytes, &file);
    }
    for (uint64_t epoch = 0; epoch < 30; epoch += 7)
        qallow_cache_since(reader, epoch, visit, &visits, &now);
    qallow_cache_each(reader, visit, &visits, &now);
    qallow_cache_wait(reader, 1000, 0, 0, &now);
    if (qallow_cache_info(reader, &info) == 0)
        assert_in_range(info.state, QALLOW_KEEPER_STARTING, QALLOW_KEEPER_GONE);
}

static int try_reader(void)
{
    struct qallow_cache *reader = NULL;
    int result = qallow_cache_open(test_tree, &reader);
    if (result == 0)
        read_all(reader);
    else
        assert_null(reader);
    qallow_cache_close(reader);
    return result;
}

/* The next keeper: what it keeps must be consistent, else it says that it is new. */
static void try_keeper(void)
{
    struct qa_cache *keeper = test_keeper(4 << 20);
    char name[100];
    for (unsigned i = 0; i < 2 * FILES; i++) {
        snprintf(name, sizeof name, "directory/with/names-%u", i);
        struct qa_file put = test_file(name, i + 5000);
        assert_true(qa_cache_put(keeper, name, &put, NULL) >= 0);
    }
    qa_cache_publish(keeper, 0);
    struct qallow_cache *reader = test_reader();
    struct qallow_file file;
    for (unsigned i = 0; i < 2 * FILES; i++) {
        snprintf(name, sizeof name, "directory/with/names-%u", i);
        assert_int_equal(qallow_cache_get(reader, name, &file), 0);
        assert_true(test_is_consistent(name, &file));
    }
    read_all(reader);
    qallow_cache_close(reader);
    qa_cache_close(keeper);
}

static void flipped_bits(void **state)
{
    struct victim victim = make_victim();
    unsigned seed = test_seed();
    uint8_t *bytes = malloc(victim.size);
    const char *given = getenv("QALLOW_ROUNDS");
    unsigned rounds = given ? (unsigned)strtoul(given, NULL, 10) : 150, replaced = 0;
    for (unsigned round = 0; round < rounds; round++) {
        memcpy(bytes, victim.sound, victim.size);
        unsigned flips = 1u << rand_r(&seed) % 8;
        for (unsigned i = 0; i < flips; i++) {
            /* the header, the table and the journal, or anywhere */
            size_t within = i % 3 == 0 ? 512 : i % 3 == 1 ? 32768 : victim.size;
            bytes[(size_t)rand_r(&seed) % within] ^= (uint8_t)(1 << rand_r(&seed) % 8);
        }
        write_segment(&victim, bytes, victim.size);
        try_reader();
        try_keeper();
        replaced += strstr(test_notices, "is made anew") != NULL;
    }
    assert_in_range(replaced, rounds / 4, rounds);
    free(bytes);
    free(victim.sound);
}

/* Words that are offsets, sizes and counts set to what would hurt most. */
static void lying_words(void **state)
{
    static const uint64_t lies[] = {0,
                                    1,
                                    31,
                                    255,
                                    256,
                                    4095,
                                    65536,
                                    UINT32_MAX,
                                    UINT32_MAX - 1ull,
                                    1ull << 31,
                                    1ull << 40,
                                    1ull << 63,
                                    UINT64_MAX,
                                    UINT64_MAX - 31,
                                    (31ull << 32) | 256,
                                    (6ull << 32) | UINT32_MAX,
                                    1ull << 59};
    struct victim victim = make_victim();
    struct qa_header *header = (struct qa_header *)victim.sound;
    size_t table = qa_granule_of(qa_load(&header->table)) * (size_t)QA_GRANULE;
    size_t ring = qa_granule_of(qa_load(&header->ring)) * (size_t)QA_GRANULE;
    size_t slot = table, entry;
    while (!qa_slot_is_used(qa_load((_Atomic uint64_t *)(victim.sound + slot))))
        slot += 8;
    entry = qa_granule_of(qa_load((_Atomic uint64_t *)(victim.sound + slot))) * (size_t)QA_GRANULE;
    size_t places[] = {8,          16,         24,         88,         128,
                       136,        144,        192,        200,        208,
                       256,        280,        288,        ring,       slot,
                       entry,      entry + 8,  entry + 16, entry + 24, entry + 64,
                       entry + 72, entry + 80, entry + 88, ring + 16,  ring + 24};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        for (size_t k = 0; k < sizeof lies / sizeof *lies; k++) {
            uint64_t former;
            memcpy(&former, victim.sound + places[i], 8);
            memcpy(victim.sound + places[i], &lies[k], 8);
            write_segment(&victim, victim.sound, victim.size);
            memcpy(victim.sound + places[i], &former, 8);
            try_reader();
            if (k % 4 == i % 4)
                try_keeper();
        }
    free(victim.sound);
}

/* A table without an empty slot, all of whose slots lead to the same entry: every search would be
 * the longest there is. */
static void a_table_without_end(void **state)
{
    struct victim victim = make_victim();
    struct qa_header *header = (struct qa_header *)victim.sound;
    uint64_t root = qa_load(&header->table), used = 0;
    uint8_t *table = victim.sound + qa_granule_of(root) * (size_t)QA_GRANULE;
    for (size_t i = 0; i < UINT64_C(1) << qa_log2_of(root); i++) {
        uint64_t slot;
        memcpy(&slot, table + i * 8, 8);
        used = qa_slot_is_used(slot) ? slot : used;
    }
    for (size_t i = 0; i < UINT64_C(1) << qa_log2_of(root); i++)
        memcpy(table + i * 8, &used, 8);
    write_segment(&victim, victim.sound, victim.size);
    assert_int_equal(try_reader(), 0);
    try_keeper();
    assert_non_null(strstr(test_notices, "is made anew"));
    free(victim.sound);
}

/* A sound entry that a search does not come to: it would be put a second time. */
static void an_entry_out_of_place(void **state)
{
    struct victim victim = make_victim();
    struct qa_header *header = (struct qa_header *)victim.sound;
    uint64_t root = qa_load(&header->table), mask = (UINT64_C(1) << qa_log2_of(root)) - 1;
    _Atomic uint64_t *slots =
        (_Atomic uint64_t *)(victim.sound + qa_granule_of(root) * (size_t)QA_GRANULE);
    uint64_t from = 0, to;
    while (!qa_slot_is_used(qa_load(&slots[from])))
        from++;
    to = from; /* behind two slots that were never used */
    for (int empty = 0; empty < 2; empty += qa_load(&slots[to]) == QA_SLOT_EMPTY)
        to = (to + 1) & mask;
    qa_store(&slots[to], qa_load(&slots[from]));
    qa_store(&slots[from], QA_SLOT_DELETED);
    write_segment(&victim, victim.sound, victim.size);
    assert_int_equal(try_reader(), 0);
    try_keeper();
    assert_non_null(strstr(test_notices, "not found"));
    free(victim.sound);
}

/* The bytes of a path are not those that its hash was made of: nobody would find it. */
static void another_path(void **state)
{
    struct victim victim = make_victim();
    uint8_t *at = memmem(victim.sound, victim.size, "with/names-1", 12);
    assert_non_null(at);
    *at = 'W';
    write_segment(&victim, victim.sound, victim.size);
    assert_int_equal(try_reader(), 0);
    try_keeper();
    assert_non_null(strstr(test_notices, "is not the one it had"));
    free(victim.sound);
}

static struct qa_entry *only_entry(struct qa_cache *keeper)
{
    uint64_t root = qa_load(&keeper->header->table), slot = 0;
    const _Atomic uint64_t *slots = qa_block(keeper, qa_granule_of(root));
    for (uint64_t i = 0; i < UINT64_C(1) << qa_log2_of(root) && !qa_slot_is_used(slot); i++)
        slot = qa_load(&slots[i]);
    assert_true(qa_slot_is_used(slot));
    return qa_block(keeper, qa_granule_of(slot));
}

/* Whatever the numbers are that a keeper never writes, no caller gets them. */
static void of_no_kind(void **state)
{
    static const uint64_t wrong[] = {
        UINT64_C(0) << 16 | UINT64_C(1) << 24,   UINT64_C(3) << 16 | UINT64_C(1) << 24,
        UINT64_C(255) << 16 | UINT64_C(1) << 24, UINT64_C(1) << 16 | UINT64_C(0) << 24,
        UINT64_C(1) << 16 | UINT64_C(4) << 24,   UINT64_C(1) << 16 | UINT64_C(255) << 24,
    };
    static const char name[] = "file";
    struct qa_cache *keeper = test_keeper(4 << 20);
    struct qa_file put = test_file(name, 1);
    struct qallow_file file;
    struct qallow_cache *reader;
    uint64_t visits = 0, now;
    assert_int_equal(qa_cache_put(keeper, name, &put, NULL), 1);
    qa_cache_publish(keeper, 0);
    struct qa_entry *entry = only_entry(keeper);
    uint64_t sound = qa_load(&entry->shape);
    assert_int_equal(qallow_cache_open(test_tree, &reader), 0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        qa_store(&entry->shape, (sound & ~UINT64_C(0xffff0000)) | wrong[i]);
        assert_int_equal(qallow_cache_get(reader, name, &file), QALLOW_E_DAMAGED);
        assert_int_equal(qallow_cache_since(reader, 0, visit, &visits, &now), QALLOW_E_DAMAGED);
        assert_int_equal(qallow_cache_each(reader, visit, &visits, &now), QALLOW_E_DAMAGED);
    }
    qa_store(&entry->shape, sound);
    assert_int_equal(qallow_cache_get(reader, name, &file), 0);
    assert_int_equal(visits, 0);
    qallow_cache_close(reader);
    qa_cache_close(keeper);
}

/* A keeper that lives, and says of itself what cannot be. */
static void in_no_state(void **state)
{
    struct qallow_cache_info info = QALLOW_CACHE_INFO_INIT;
    struct qa_cache *keeper = test_keeper(4 << 20);
    struct qallow_cache *reader;
    assert_int_equal(qallow_cache_open(test_tree, &reader), 0);
    uint32_t sound = qa_load32(&keeper->header->state);
    assert_int_equal(qallow_cache_info(reader, &info), 0);
    static const uint32_t wrong[] = {0, QALLOW_KEEPER_GONE + 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        qa_store32(&keeper->header->state, wrong[i]);
        assert_int_equal(qallow_cache_info(reader, &info), QALLOW_E_DAMAGED);
    }
    qa_store32(&keeper->header->state, sound);
    assert_int_equal(qallow_cache_info(reader, &info), 0);
    qallow_cache_close(reader);
    qa_cache_close(keeper);
}

static void cut_off(void **state)
{
    struct victim victim = make_victim();
    static const size_t sizes[] = {0, 1, 7, 4096, 8191, 8192, 8193, 12288, 20480, 65535};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        write_segment(&victim, victim.sound, sizes[i]);
        int result = try_reader();
        assert_true(result == QALLOW_E_DAMAGED || (result == 0 && sizes[i] > QA_HEADER_BYTES));
        try_keeper();
        assert_non_null(strstr(test_notices, "is made anew"));
    }
    free(victim.sound);
}

static void set_word32(struct victim *victim, size_t at, uint32_t value)
{
    memcpy(victim->sound + at, &value, sizeof value);
    write_segment(victim, victim->sound, victim->size);
}

static void other_formats_and_owners(void **state)
{
    struct victim victim = make_victim();
    char wanted[100];
    set_word32(&victim, 8, QA_CACHE_VERSION + 1);
    assert_int_equal(try_reader(), QALLOW_E_VERSION);
    snprintf(wanted, sizeof wanted, "format %d", QA_CACHE_VERSION + 1);
    assert_non_null(strstr(qallow_error_detail(), wanted));
    set_word32(&victim, 8, QA_CACHE_VERSION);
    set_word32(&victim, 12, 1);
    assert_int_equal(try_reader(), QALLOW_E_UNAVAILABLE);
    set_word32(&victim, 12, 0);
    assert_int_equal(try_reader(), 0);
    victim.sound[4096 + strlen(test_tree) - 1] ^= 1; /* the same hash of the name, so to speak */
    write_segment(&victim, victim.sound, victim.size);
    assert_int_equal(try_reader(), QALLOW_E_UNAVAILABLE);
    try_keeper();
    assert_non_null(strstr(test_notices, "another directory"));
    victim.sound[4096 + strlen(test_tree) - 1] ^= 1;
    victim.sound[72] ^= 1; /* boot id */
    write_segment(&victim, victim.sound, victim.size);
    try_keeper();
    assert_non_null(strstr(test_notices, "restarted"));
    victim.sound[72] ^= 1;
    victim.sound[48] ^= 1; /* inode of the root */
    write_segment(&victim, victim.sound, victim.size);
    try_keeper();
    assert_non_null(strstr(test_notices, "of the same name"));
    free(victim.sound);
}

/* The segment is open when its words change: the size that is published is not the file's. */
static void a_size_that_grows_without_the_file(void **state)
{
    struct victim victim = make_victim();
    write_segment(&victim, victim.sound, victim.size);
    struct qallow_cache *reader = test_reader();
    int fd = open(victim.path, O_RDWR);
    struct qa_header *header = mmap(NULL, victim.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(header != MAP_FAILED);
    qa_store(&header->size, UINT64_C(1) << 36);
    uint64_t beyond = victim.size / QA_GRANULE;
    qa_store(&header->table, qa_table_root((uint32_t)beyond, 12, 5));
    qa_store(&header->ring, beyond + 1);
    struct qallow_file file;
    assert_int_equal(qallow_cache_get(reader, "a", &file), QALLOW_E_DAMAGED);
    read_all(reader);
    /* And the journal of a sound one claims more than there is. */
    qa_store(&header->table, qa_load(&((struct qa_header *)victim.sound)->table));
    qa_store(&header->head, UINT64_MAX);
    qa_store(&header->epoch, UINT64_MAX);
    read_all(reader);
    munmap(header, victim.size);
    close(fd);
    qallow_cache_close(reader);
    free(victim.sound);
}

/* The readers' counters are nobody's business but may be damaged all the same. */
static void damaged_counters(void **state)
{
    struct victim victim = make_victim();
    char path[QA_SEGMENT_PATH + 10];
    struct qallow_file file;
    snprintf(path, sizeof path, "%s.readers", victim.path);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(unlink(path), 0);
        if (i == 1)
            assert_int_equal(mknod(path, S_IFREG | 0600, 0), 0);
        if (i == 2)
            assert_int_equal(mkdir(path, 0700), 0);
        if (i == 3)
            assert_int_equal(mknod(path, S_IFREG | 0666, 0) || chmod(path, 0666), 0);
        struct qallow_cache *reader = test_reader();
        assert_int_equal(qallow_cache_get(reader, "directory/with/names-1", &file), 0);
        qallow_cache_close(reader);
        if (i == 2)
            assert_int_equal(rmdir(path), 0);
        try_keeper();
    }
    free(victim.sound);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, test_make_place, test_remove_place)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(flipped_bits),
        CASE(lying_words),
        CASE(a_table_without_end),
        CASE(an_entry_out_of_place),
        CASE(another_path),
        CASE(of_no_kind),
        CASE(in_no_state),
        CASE(cut_off),
        CASE(other_formats_and_owners),
        CASE(a_size_that_grows_without_the_file),
        CASE(damaged_counters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
