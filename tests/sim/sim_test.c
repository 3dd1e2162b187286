/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of the simulated disk: it does what a real one does while nothing goes wrong (compared with
 * the operating system), it keeps what was synced, and it does lose what was not: a simulator that
 * loses nothing would let every crash test pass.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "content.h"
#include "sim_os.h"

static uint64_t base_seed = 1;

static void fill(uint8_t *bytes, size_t length, uint64_t *random)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)(1 + sim_below(random, 255)); /* never what a hole reads as */
}

static int open_ok(const struct qr_os *os, const char *path, enum qr_open_mode mode)
{
    int file = os->open(os->context, path, mode, 0644);
    assert_true(file >= 0);
    return file;
}

static void write_ok(const struct qr_os *os, int file, const void *bytes, size_t n, uint64_t offset)
{
    assert_int_equal(os->pwrite(os->context, file, bytes, n, offset), n);
}

/* A file of `length` bytes `letter`; synced with its name if durable. Stays open. */
static int make_file(const struct qr_os *os, const char *path, char letter, size_t length,
                     int durable)
{
    uint8_t *bytes = sim_allocate(length);
    int file = open_ok(os, path, QR_OPEN_REPLACE);
    memset(bytes, letter, length);
    write_ok(os, file, bytes, length, 0);
    if (durable) {
        assert_int_equal(os->sync(os->context, file), 0);
        assert_int_equal(os->sync_directory_of(os->context, path), 0);
    }
    free(bytes);
    return file;
}

/* --- like the operating system --- */

enum { FILES = 4, FILE_BYTES = 40000 };

/* One random operation on both tables; their results must agree. */
static void step_both(const struct qr_os *tables[2], int files[2], char paths[2][FILES][64],
                      uint64_t *random)
{
    static uint8_t bytes[2][FILE_BYTES];
    uint64_t what = sim_below(random, 12), offset = sim_below(random, FILE_BYTES);
    size_t length = sim_below(random, 9000), a = sim_below(random, FILES),
           b = sim_below(random, FILES);
    int64_t results[2] = {0, 0};
    fill(bytes[0], length, random);
    memcpy(bytes[1], bytes[0], length);
    for (int i = 0; i < 2; i++) {
        const struct qr_os *os = tables[i];
        void *context = os->context;
        switch (what) {
        case 0:
        case 1:
            if (files[i] >= 0)
                os->close(context, files[i]);
            files[i] = os->open(context, paths[i][a], (enum qr_open_mode)(b % 4), 0644);
            results[i] = files[i] < 0 ? files[i] : 0;
            break;
        case 2:
            results[i] = os->rename(context, paths[i][a], paths[i][b]);
            break;
        case 3:
            results[i] = a % 2 ? os->unlink(context, paths[i][b]) : 0;
            break;
        case 4:
            results[i] = files[i] < 0 ? 0 : os->sync(context, files[i]);
            break;
        case 5:
            results[i] = files[i] < 0 ? 0 : os->truncate(context, files[i], offset);
            break;
        case 6:
            results[i] = files[i] < 0 || length == 0
                             ? 0
                             : os->punch(context, files[i], offset, length);
            break;
        case 7:
        case 8:
        case 9:
            results[i] = files[i] < 0 ? 0
                                      : os->pwrite(context, files[i], bytes[i], length, offset);
            break;
        case 10:
            results[i] = files[i] < 0 ? 0 : os->pread(context, files[i], bytes[i], length, offset);
            break;
        case 11:
            results[i] = files[i] < 0 ? 0 : os->size(context, files[i]);
            break;
        }
    }
    if (what == 5 || what == 6) /* which error a read-only file gives is not our business */
        assert_int_equal(results[0] < 0, results[1] < 0);
    else
        assert_int_equal(results[0], results[1]);
    assert_memory_equal(bytes[0], bytes[1], length);
}

static void it_behaves_like_the_operating_system(void **state)
{
    char directory[] = "/tmp/qallow-sim-XXXXXX", paths[2][FILES][64];
    struct sim *sim = sim_create(base_seed);
    const struct qr_os *tables[2] = {sim_os(sim), qr_os_posix()};
    int files[2] = {-1, -1};
    uint64_t random = base_seed;
    assert_non_null(mkdtemp(directory));
    for (int i = 0; i < FILES; i++) {
        snprintf(paths[0][i], sizeof paths[0][i], "d/%d", i);
        snprintf(paths[1][i], sizeof paths[1][i], "%s/%d", directory, i);
    }
    for (int i = 0; i < 3000; i++)
        step_both(tables, files, paths, &random);
    for (int i = 0; i < FILES; i++)
        unlink(paths[1][i]);
    if (files[1] >= 0)
        tables[1]->close(NULL, files[1]);
    assert_int_equal(rmdir(directory), 0);
    sim_destroy(sim);
}

/* --- contents after a crash --- */

static void what_was_synced_survives(void **state)
{
    struct sim *sim = sim_create(base_seed);
    const struct qr_os *os = sim_os(sim);
    int file = make_file(os, "d/f", 'a', 10000, 1);
    uint8_t bytes[2000];
    memset(bytes, 'b', sizeof bytes);
    write_ok(os, file, bytes, sizeof bytes, 10000);
    for (uint64_t seed = 0; seed < 2000; seed++) {
        struct sim *image = sim_crash(sim, seed, seed % 2 ? SIM_FLIP_BITS : SIM_RANDOM_LOSS);
        size_t length;
        uint8_t *found = sim_dump(image, "d/f", &length);
        assert_non_null(found);
        assert_true(length >= 10000);
        for (size_t i = 0; i < 10000; i++)
            assert_int_equal(found[i], 'a');
        free(found);
        sim_destroy(image);
    }
    os->close(os->context, file);
    sim_destroy(sim);
}

/* Canary: two unsynced writes of several sectors over durable bytes must be seen in every state
 * that a disk may leave them in. */
static void unsynced_writes_are_lost_torn_and_reordered(void **state)
{
    struct sim *sim = sim_create(base_seed);
    const struct qr_os *os = sim_os(sim);
    int file = make_file(os, "d/f", 'a', 8192, 1);
    uint8_t bytes[2048];
    unsigned all = 0, none = 0, first_only = 0, second_only = 0, torn = 0;
    memset(bytes, 'b', sizeof bytes);
    write_ok(os, file, bytes, sizeof bytes, 0);
    write_ok(os, file, bytes, sizeof bytes, 4096);
    for (uint64_t seed = 0; seed < 500; seed++) {
        struct sim *image = sim_crash(sim, seed, SIM_RANDOM_LOSS);
        unsigned landed[2] = {0, 0}; /* sectors */
        size_t length;
        uint8_t *found = sim_dump(image, "d/f", &length);
        assert_int_equal(length, 8192);
        for (size_t i = 0; i < length; i += SIM_SECTOR) {
            for (size_t j = 1; j < SIM_SECTOR; j++) /* a sector is never torn */
                assert_int_equal(found[i], found[i + j]);
            if (i % 4096 >= 2048)
                assert_int_equal(found[i], 'a');
            landed[i / 4096] += found[i] == 'b';
        }
        all += landed[0] == 4 && landed[1] == 4;
        none += landed[0] == 0 && landed[1] == 0;
        first_only += landed[0] == 4 && landed[1] == 0;
        second_only += landed[0] == 0 && landed[1] == 4;
        torn += landed[0] % 4 != 0 || landed[1] % 4 != 0;
        free(found);
        sim_destroy(image);
    }
    assert_true(all > 10 && none > 10 && first_only > 10 && second_only > 10 && torn > 10);
    os->close(os->context, file);
    sim_destroy(sim);
}

static void sizes_are_lost_apart_from_bytes(void **state)
{
    struct sim *sim = sim_create(base_seed);
    const struct qr_os *os = sim_os(sim);
    int file = make_file(os, "d/f", 'a', 4096, 1);
    uint8_t bytes[4096];
    unsigned short_file = 0, holes = 0, whole = 0;
    memset(bytes, 'b', sizeof bytes);
    write_ok(os, file, bytes, sizeof bytes, 4096);
    for (uint64_t seed = 0; seed < 500; seed++) {
        struct sim *image = sim_crash(sim, seed, SIM_RANDOM_LOSS);
        size_t length;
        uint8_t *found = sim_dump(image, "d/f", &length);
        if (length == 4096)
            short_file++;
        else if (memchr(found + 4096, 0, 4096))
            holes++;
        else
            whole++;
        free(found);
        sim_destroy(image);
    }
    assert_true(short_file > 10 && holes > 10 && whole > 10);
    os->close(os->context, file);
    sim_destroy(sim);
}

static void random_change(const struct qr_os *os, int file, uint64_t *random, int only_writes)
{
    static uint8_t bytes[6000];
    uint64_t what = only_writes ? 9 : sim_below(random, 10);
    uint64_t offset = sim_below(random, 20000);
    size_t length = 1 + sim_below(random, sizeof bytes);
    fill(bytes, length, random);
    if (what == 0)
        assert_int_equal(os->truncate(os->context, file, offset), 0);
    else if (what == 1)
        assert_int_equal(os->punch(os->context, file, offset / 4096 * 4096, 8192), 0);
    else
        write_ok(os, file, bytes, length, offset);
}

/* The image against every moment since the last sync: each byte, and without truncations and holes
 * each whole sector, is as it was at one of them. */
static void check_against_moments(const uint8_t *found, size_t length,
                                  uint8_t (*moments)[FILE_BYTES], size_t count, size_t unit)
{
    for (size_t at = 0; at < length; at += unit) {
        size_t n = length - at < unit ? length - at : unit, i = 0;
        while (i < count && memcmp(found + at, moments[i] + at, n) != 0)
            i++;
        if (i == count)
            fail_msg("byte %zu was never like this", at);
    }
}

static void every_sector_is_of_some_moment(void **state)
{
    enum { CHANGES = 12 };
    static uint8_t moments[CHANGES + 1][FILE_BYTES];
    for (uint64_t seed = base_seed; seed < base_seed + 150; seed++) {
        struct sim *sim = sim_create(seed);
        const struct qr_os *os = sim_os(sim);
        uint64_t random = seed;
        int file = make_file(os, "d/f", 'a', 9000, 1), only_writes = seed % 2 == 0;
        memset(moments, 0, sizeof moments);
        for (size_t i = 0; i <= CHANGES; i++) {
            if (i > 0)
                random_change(os, file, &random, only_writes);
            os->pread(os->context, file, moments[i], FILE_BYTES, 0);
        }
        for (uint64_t crash = 0; crash < 30; crash++) {
            struct sim *image = sim_crash(sim, seed * 1000 + crash, SIM_RANDOM_LOSS);
            size_t length;
            uint8_t *found = sim_dump(image, "d/f", &length);
            check_against_moments(found, length, moments, CHANGES + 1,
                                  only_writes ? SIM_SECTOR : 1);
            free(found);
            sim_destroy(image);
        }
        os->close(os->context, file);
        sim_destroy(sim);
    }
}

static void bits_flip_only_where_unsynced(void **state)
{
    struct sim *sim = sim_create(base_seed);
    const struct qr_os *os = sim_os(sim);
    int file = make_file(os, "d/f", 'a', 1000, 1);
    unsigned flipped = 0;
    uint8_t bytes[1000];
    memset(bytes, 'b', sizeof bytes);
    write_ok(os, file, bytes, sizeof bytes, 1000);
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct sim *image = sim_crash(sim, seed, SIM_KEEP_ALL | SIM_FLIP_BITS);
        size_t length;
        uint8_t *found = sim_dump(image, "d/f", &length);
        assert_int_equal(length, 2000);
        for (size_t i = 0; i < 1000; i++) {
            assert_int_equal(found[i], 'a'); /* same sector, other bytes */
            flipped += found[1000 + i] != 'b';
        }
        free(found);
        sim_destroy(image);
    }
    assert_true(flipped > 100);
    os->close(os->context, file);
    sim_destroy(sim);
}

/* --- names after a crash --- */

static void names_need_their_own_sync(void **state)
{
    unsigned lost = 0, back = 0, undone = 0;
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct sim *sim = sim_create(seed);
        const struct qr_os *os = sim_os(sim);
        void *context = os->context;
        os->close(context, make_file(os, "d/old", 'o', 10, 1));
        os->close(context, make_file(os, "d/from", 'f', 10, 1));
        int file = make_file(os, "d/new", 'n', 10, 0);
        assert_int_equal(os->sync(context, file), 0);
        os->close(context, file);
        assert_int_equal(os->unlink(context, "d/old"), 0);
        assert_int_equal(os->rename(context, "d/from", "d/to"), 0);

        struct sim *image = sim_crash(sim, seed, SIM_RANDOM_LOSS);
        size_t length;
        uint8_t *new_file = sim_dump(image, "d/new", &length);
        uint8_t *old = sim_dump(image, "d/old", &length);
        uint8_t *from = sim_dump(image, "d/from", &length), *to = sim_dump(image, "d/to", &length);
        assert_int_equal(!from, !!to); /* a rename is one thing */
        lost += !new_file;
        back += !!old;
        undone += !!from;
        if (new_file) /* its content was synced */
            assert_int_equal(new_file[0], 'n');
        free(new_file);
        free(old);
        free(from);
        free(to);
        sim_destroy(image);

        assert_int_equal(os->sync_directory_of(context, "d/any"), 0);
        image = sim_crash(sim, seed, SIM_DROP_ALL);
        assert_null(sim_dump(image, "d/old", &length));
        assert_null(sim_dump(image, "d/from", &length));
        new_file = sim_dump(image, "d/new", &length);
        to = sim_dump(image, "d/to", &length);
        assert_true(new_file && to);
        free(new_file);
        free(to);
        sim_destroy(image);
        sim_destroy(sim);
    }
    assert_true(lost > 30 && back > 30 && undone > 30);
}

/* Replaces d/f by `letter`, leaving out what `flaw` says: 1 the sync of the file, 2 the sync of
 * the directory. */
static void replace(const struct qr_os *os, char letter, int flaw)
{
    int file = make_file(os, "d/f.tmp", letter, 3000, 0);
    if (flaw != 1)
        assert_int_equal(os->sync(os->context, file), 0);
    os->close(os->context, file);
    assert_int_equal(os->rename(os->context, "d/f.tmp", "d/f"), 0);
    if (flaw != 2)
        assert_int_equal(os->sync_directory_of(os->context, "d/f"), 0);
}

/* 'o' or 'n' if d/f is wholly the old or the new one, '?' otherwise. */
static char whole_file(struct sim *image)
{
    size_t length, same = 0;
    uint8_t *found = sim_dump(image, "d/f", &length);
    char letter = found && length == 3000 ? (char)found[0] : '?';
    while (letter != '?' && same < length && found[same] == (uint8_t)letter)
        same++;
    if (letter != '?' && same < length)
        letter = '?';
    free(found);
    return letter;
}

struct watch {
    struct sim *sim;
    unsigned bad;
};

static void crash_before(void *context, enum sim_kind kind)
{
    struct watch *watch = context;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct sim *image = sim_crash(watch->sim, seed, SIM_RANDOM_LOSS);
        watch->bad += whole_file(image) == '?';
        sim_destroy(image);
    }
}

/* Canary: the right order of an atomic replacement holds at every crash, and each sync that is left
 * out is noticed. */
static void a_replacement_is_atomic_only_with_both_syncs(void **state)
{
    for (int flaw = 0; flaw <= 2; flaw++) {
        struct watch watch = {sim_create(base_seed), 0};
        const struct qr_os *os = sim_os(watch.sim);
        unsigned old_after = 0;
        os->close(os->context, make_file(os, "d/f", 'o', 3000, 1));
        sim_set_hook(watch.sim, crash_before, &watch);
        replace(os, 'n', flaw);
        for (uint64_t seed = 0; seed < 100; seed++) {
            struct sim *image = sim_crash(watch.sim, seed, SIM_RANDOM_LOSS);
            char found = whole_file(image);
            watch.bad += found == '?';
            old_after += found == 'o';
            sim_destroy(image);
        }
        assert_true(flaw == 1 ? watch.bad > 0 : watch.bad == 0);
        assert_true(flaw == 2 ? old_after > 0 : old_after == 0);
        sim_destroy(watch.sim);
    }
}

/* --- failures --- */

static void the_nth_operation_fails(void **state)
{
    struct sim *sim = sim_create(base_seed);
    const struct qr_os *os = sim_os(sim);
    int file = make_file(os, "d/f", 'a', 100, 1);
    sim_fail(sim, SIM_WRITE | SIM_SYNC, 3, EIO, 0);
    write_ok(os, file, "x", 1, 0);
    assert_int_equal(os->size(os->context, file), 100); /* of another kind */
    assert_int_equal(os->sync(os->context, file), 0);
    assert_false(sim_has_failed(sim));
    assert_int_equal(os->pwrite(os->context, file, "x", 1, 0), -EIO);
    assert_true(sim_has_failed(sim));
    write_ok(os, file, "x", 1, 0);
    sim_fail(sim, SIM_WRITE, 1, EDQUOT, 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(os->pwrite(os->context, file, "x", 1, 0), -EDQUOT);
    assert_int_equal(os->sync(os->context, file), 0);
    sim_fail(sim, 0, 0, 0, 0);
    write_ok(os, file, "x", 1, 0);
    os->close(os->context, file);
    assert_int_equal(sim_open_files(sim), 0);
    sim_destroy(sim);
}

/* Canary: after a failed sync the data may be gone although the program sees it and the next sync
 * succeeds. */
static void a_failed_sync_forgets(void **state)
{
    unsigned lost = 0, landed = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct sim *sim = sim_create(seed);
        const struct qr_os *os = sim_os(sim);
        int file = make_file(os, "d/f", 'a', 100, 1);
        char byte = 0;
        size_t length;
        write_ok(os, file, "b", 1, 0);
        sim_fail(sim, SIM_SYNC, 1, EIO, 0);
        assert_int_equal(os->sync(os->context, file), -EIO);
        assert_int_equal(os->sync(os->context, file), 0);
        assert_int_equal(os->pread(os->context, file, &byte, 1, 0), 1);
        assert_int_equal(byte, 'b');
        struct sim *image = sim_crash(sim, seed, SIM_KEEP_ALL);
        uint8_t *found = sim_dump(image, "d/f", &length);
        lost += found[0] == 'a';
        landed += found[0] == 'b';
        free(found);
        sim_destroy(image);
        os->close(os->context, file);
        sim_destroy(sim);
    }
    assert_true(lost > 10 && landed > 10);
}

static void a_full_disk_takes_what_fits(void **state)
{
    struct sim *sim = sim_create(base_seed);
    const struct qr_os *os = sim_os(sim);
    static uint8_t bytes[20000];
    int file = open_ok(os, "d/f", QR_OPEN_CREATE);
    sim_set_capacity(sim, 10000); /* two blocks */
    assert_int_equal(os->pwrite(os->context, file, bytes, sizeof bytes, 100), -ENOSPC);
    assert_int_equal(os->size(os->context, file), 8192);
    write_ok(os, file, bytes, 8192, 0); /* no new blocks */
    assert_int_equal(os->pwrite(os->context, file, bytes, 1, 8192), -ENOSPC);
    assert_int_equal(os->punch(os->context, file, 0, 4096), 0);
    write_ok(os, file, bytes, 1, 8192);
    os->close(os->context, file);
    assert_int_equal(os->unlink(os->context, "d/f"), 0);
    file = open_ok(os, "d/g", QR_OPEN_CREATE); /* the room is free again */
    write_ok(os, file, bytes, 8192, 0);
    os->close(os->context, file);
    sim_destroy(sim);
}

static void a_stopped_disk_does_nothing_more(void **state)
{
    struct sim *sim = sim_create(base_seed);
    const struct qr_os *os = sim_os(sim);
    int file = make_file(os, "d/f", 'a', 100, 1);
    char byte;
    sim_stop_at(sim, sim_count(sim, SIM_CHANGES) + 2);
    write_ok(os, file, "b", 1, 0);
    assert_int_equal(os->pwrite(os->context, file, "c", 1, 0), -EIO);
    assert_int_equal(os->pread(os->context, file, &byte, 1, 0), -EIO);
    assert_int_equal(os->sync(os->context, file), -EIO);
    assert_int_equal(os->rename(os->context, "d/f", "d/g"), -EIO);
    assert_int_equal(os->close(os->context, file), -EIO);
    struct sim *image = sim_crash(sim, 1, SIM_KEEP_ALL);
    size_t length;
    uint8_t *found = sim_dump(image, "d/f", &length);
    assert_int_equal(found[0], 'b');
    free(found);
    sim_destroy(image);
    sim_destroy(sim);
}

static void locks_belong_to_the_open_file(void **state)
{
    struct sim *sim = sim_create(base_seed);
    const struct qr_os *os = sim_os(sim);
    void *context = os->context;
    int first = make_file(os, "d/f", 'a', 1, 1), second = open_ok(os, "d/f", QR_OPEN_WRITE);
    int reader = open_ok(os, "d/f", QR_OPEN_READ);
    assert_int_equal(os->is_locked(context, second), 0);
    assert_int_equal(os->lock(context, reader), -EBADF);
    assert_int_equal(os->lock(context, first), 0);
    assert_int_equal(os->lock(context, first), 0);
    assert_int_equal(os->is_locked(context, first), 0); /* by itself */
    assert_int_equal(os->is_locked(context, reader), 1);
    assert_int_equal(os->lock(context, second), -EAGAIN);
    os->close(context, first);
    assert_int_equal(os->lock(context, second), 0);
    os->close(context, second);
    os->close(context, reader);
    sim_destroy(sim);
}

static void the_same_seed_gives_the_same_disk(void **state)
{
    uint8_t *found[2];
    size_t length[2];
    struct sim *sim = sim_create(base_seed);
    const struct qr_os *os = sim_os(sim);
    int file = make_file(os, "d/f", 'a', 20000, 1);
    uint64_t random = base_seed;
    for (int i = 0; i < 10; i++)
        random_change(os, file, &random, 0);
    for (uint64_t seed = 0; seed < 50; seed++) {
        for (int i = 0; i < 2; i++) {
            struct sim *image = sim_crash(sim, seed, SIM_FLIP_BITS);
            found[i] = sim_dump(image, "d/f", &length[i]);
            sim_destroy(image);
        }
        assert_int_equal(length[0], length[1]);
        assert_memory_equal(found[0], found[1], length[0]);
        free(found[0]);
        free(found[1]);
    }
    os->close(os->context, file);
    sim_destroy(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_behaves_like_the_operating_system),
        cmocka_unit_test(what_was_synced_survives),
        cmocka_unit_test(unsynced_writes_are_lost_torn_and_reordered),
        cmocka_unit_test(sizes_are_lost_apart_from_bytes),
        cmocka_unit_test(every_sector_is_of_some_moment),
        cmocka_unit_test(bits_flip_only_where_unsynced),
        cmocka_unit_test(names_need_their_own_sync),
        cmocka_unit_test(a_replacement_is_atomic_only_with_both_syncs),
        cmocka_unit_test(the_nth_operation_fails),
        cmocka_unit_test(a_failed_sync_forgets),
        cmocka_unit_test(a_full_disk_takes_what_fits),
        cmocka_unit_test(a_stopped_disk_does_nothing_more),
        cmocka_unit_test(locks_belong_to_the_open_file),
        cmocka_unit_test(the_same_seed_gives_the_same_disk),
    };
    if (getenv("QALLOW_SEED"))
        base_seed = strtoull(getenv("QALLOW_SEED"), NULL, 0);
    print_message("seed %llu\n", (unsigned long long)base_seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
