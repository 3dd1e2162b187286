/* SPDX-License-Identifier: Apache-2.0 */
/* qr_diff and what follows it: apply(old, encode(diff(old, new))) == new for all sorts of change,
 * and the deltas are as small as the change is. */
#include "tests/delta/support.h"

#define MIB ((size_t)1 << 20)

static const struct encoding plain = {{24, 0}, 1 << 20, 1}; /* a frame of a file's page */

static struct encoding random_encoding(void)
{
    static const size_t capacities[] = {64, 65, 80, 127, 300, 4096, 1 << 16};
    static const size_t costs[] = {0, 4, 24, 100};
    struct encoding how = {{costs[random_below(4)], (int)random_below(2)},
                           capacities[random_below(7)],
                           (int)random_below(2)};
    return how;
}

static size_t random_index_bytes(void)
{
    return random_below(4) ? SIZE_MAX : random_below(1 << 16);
}

/* --- properties --- */

static void random_changes_come_back(void **unused)
{
    for (unsigned round = 0; round < rounds(1500); round++) {
        size_t most = (size_t)1 << random_below(18);
        struct bytes old =
            content_new((enum content)random_below(CONTENT_KINDS), random_below(most + 1));
        struct bytes new_ = bytes_copy(old.p, old.n);
        for (uint64_t i = random_below(12); i > 0; i--)
            mutate(&new_);
        struct encoding how = random_encoding();
        size_t index_bytes = random_index_bytes();
        check_pair(&old, &new_, how, index_bytes);
        check_pair(&new_, &old, how, index_bytes);
        bytes_free(&old);
        bytes_free(&new_);
    }
}

static void unrelated_contents_come_back(void **unused)
{
    for (unsigned round = 0; round < rounds(300); round++) {
        struct bytes old =
            content_new((enum content)random_below(CONTENT_KINDS), random_below(20000));
        struct bytes new_ =
            content_new((enum content)random_below(CONTENT_KINDS), random_below(20000));
        check_pair(&old, &new_, random_encoding(), random_index_bytes());
        bytes_free(&old);
        bytes_free(&new_);
    }
}

/* Every pair of sizes up to 300, of contents that share some bytes. */
static void every_small_pair_of_sizes(void **unused)
{
    struct bytes from = content_new(CONTENT_BLOCKS, 700);
    for (size_t a = 0; a <= 300; a++)
        for (size_t b = 0; b <= 300; b++) {
            struct bytes old = bytes_copy(from.p + random_below(2) * 64, a);
            struct bytes new_ = bytes_copy(from.p + random_below(300), b);
            if (b && random_below(2))
                new_.p[random_below(b)] ^= 1;
            check_pair(&old, &new_, random_encoding(), SIZE_MAX);
            bytes_free(&old);
            bytes_free(&new_);
        }
    bytes_free(&from);
}

/* Every content of up to three symbols over tiny sizes: all borders of the logic, exhaustively. */
static void all_tiny_contents(void **unused)
{
    uint8_t a[6], b[6];
    for (unsigned x = 0; x < 729; x++)
        for (unsigned y = 0; y < 729; y++) {
            size_t n = x % 7, m = (x + y) % 7;
            for (unsigned i = 0, u = x, v = y; i < 6; i++, u /= 3, v /= 3) {
                a[i] = (uint8_t)(u % 3);
                b[i] = (uint8_t)(v % 3);
            }
            struct bytes old = {a, n < 6 ? n : 6}, new_ = {b, m < 6 ? m : 6};
            check_pair(&old, &new_, (struct encoding){{0, (int)(y & 1)}, 64, (int)(x & 1)},
                       SIZE_MAX);
        }
}

static void the_result_is_always_the_same(void **unused)
{
    struct bytes old = content_new(CONTENT_TEXT, 200000), new_ = bytes_copy(old.p, old.n);
    for (int i = 0; i < 20; i++)
        mutate(&new_);
    struct qr_edits first = {0}, again = {0};
    assert_int_equal(qr_diff(old.p, old.n, new_.p, new_.n, SIZE_MAX, &first), 0);
    struct bytes moved = bytes_copy(old.p, old.n); /* other addresses */
    assert_int_equal(qr_diff(moved.p, moved.n, new_.p, new_.n, SIZE_MAX, &again), 0);
    assert_int_equal(first.count, again.count);
    for (size_t i = 0; i < first.count; i++) {
        assert_int_equal(first.items[i].offset, again.items[i].offset);
        assert_int_equal(first.items[i].old_length, again.items[i].old_length);
        assert_int_equal(first.items[i].new_length, again.items[i].new_length);
        assert_int_equal(first.items[i].source, again.items[i].source);
        assert_ptr_equal(first.items[i].bytes, again.items[i].bytes);
        assert_int_equal(first.items[i].from, again.items[i].from);
    }
    qr_edits_finish(&first);
    qr_edits_finish(&again);
    bytes_free(&old);
    bytes_free(&new_);
    bytes_free(&moved);
}

static void equal_contents_give_nothing(void **unused)
{
    struct qr_edits list = {0};
    struct bytes old = content_new(CONTENT_RANDOM, 5000), new_ = bytes_copy(old.p, old.n);
    assert_int_equal(qr_diff(old.p, old.n, new_.p, new_.n, SIZE_MAX, &list), 0);
    assert_int_equal(qr_diff(NULL, 0, NULL, 0, SIZE_MAX, &list), 0);
    assert_int_equal(list.count, 0);
    bytes_free(&old);
    bytes_free(&new_);
}

/* --- sizes --- */

static void one_change_in_place(void **unused)
{
    for (int kind = 0; kind < CONTENT_KINDS; kind++) {
        struct bytes old = content_new((enum content)kind, MIB), new_ = bytes_copy(old.p, old.n);
        for (size_t i = 0; i < 100; i++)
            new_.p[MIB / 2 + i] ^= (uint8_t)(1 + random_below(127));
        struct tally t = check_pair(&old, &new_, plain, SIZE_MAX);
        assert_int_equal(t.edits, 1);
        assert_int_equal(t.literal, 100);
        assert_true(t.encoded <= 110);
        bytes_free(&old);
        bytes_free(&new_);
    }
}

static void one_insertion(void **unused)
{
    for (int kind = 0; kind < CONTENT_KINDS; kind++) {
        struct bytes old = content_new((enum content)kind, MIB), new_ = bytes_copy(old.p, old.n);
        struct bytes piece = content_new(CONTENT_RANDOM, 100);
        bytes_splice(&new_, MIB / 2, 0, piece.p, piece.n);
        struct tally t = check_pair(&old, &new_, plain, SIZE_MAX);
        assert_int_equal(t.edits, 1);
        assert_true(t.literal <= 100);
        assert_true(t.encoded <= 110);
        t = check_pair(&new_, &old, plain, SIZE_MAX);
        assert_int_equal(t.edits, 1);
        assert_int_equal(t.literal, 0);
        bytes_free(&old);
        bytes_free(&new_);
        bytes_free(&piece);
    }
}

/* At random places at least 200 bytes apart. */
static size_t scattered_place(size_t i, size_t count, size_t n)
{
    return n / count * i + random_below(n / count - 200);
}

static void scattered_insertions(void **unused)
{
    static const enum content kinds[] = {CONTENT_RANDOM, CONTENT_TEXT, CONTENT_FLOATS};
    for (unsigned round = 0; round < 9; round++) {
        struct bytes old = content_new(kinds[round % 3], MIB), new_ = bytes_copy(old.p, old.n);
        for (size_t i = 20; i-- > 0;) {
            struct bytes piece = content_new(CONTENT_RANDOM, 50);
            bytes_splice(&new_, scattered_place(i, 20, MIB), 0, piece.p, piece.n);
            bytes_free(&piece);
        }
        struct tally t = check_pair(&old, &new_, plain, SIZE_MAX);
        assert_in_range(t.edits, 20, 21);
        assert_in_range(t.literal, 950, 1050);
        assert_true(t.encoded < 1200);
        bytes_free(&old);
        bytes_free(&new_);
    }
}

static void scattered_changes_of_every_sort(void **unused)
{
    for (unsigned round = 0; round < 10; round++) {
        struct bytes old = content_new(round % 2 ? CONTENT_TEXT : CONTENT_RANDOM, MIB);
        struct bytes new_ = bytes_copy(old.p, old.n);
        size_t ideal = 0;
        for (size_t i = 50; i-- > 0;) {
            size_t inserted = random_below(60), removed = random_below(60);
            struct bytes piece = content_new(CONTENT_RANDOM, inserted);
            bytes_splice(&new_, scattered_place(i, 50, MIB), removed, piece.p, piece.n);
            bytes_free(&piece);
            ideal += inserted + 6; /* gap, head, length */
        }
        struct tally t = check_pair(&old, &new_, plain, SIZE_MAX);
        assert_true(t.encoded <= 2 * ideal);
        bytes_free(&old);
        bytes_free(&new_);
    }
}

/* A shift hidden in a file of the same size: 100 bytes come, 100 others go. */
static void a_shift_without_change_of_size(void **unused)
{
    for (unsigned round = 0; round < 6; round++) {
        struct bytes old = content_new(round % 2 ? CONTENT_TEXT : CONTENT_RANDOM, MIB);
        struct bytes new_ = bytes_copy(old.p, old.n);
        struct bytes piece = content_new(CONTENT_RANDOM, 100);
        bytes_splice(&new_, 700000, 100, NULL, 0);
        bytes_splice(&new_, 300000, 0, piece.p, piece.n);
        new_.p[10] ^= 1;
        struct tally t = check_pair(&old, &new_, plain, SIZE_MAX);
        assert_true(t.literal < 150);
        assert_true(t.encoded < 200);
        bytes_free(&old);
        bytes_free(&new_);
        bytes_free(&piece);
    }
}

static void a_moved_part_is_copied(void **unused)
{
    for (unsigned round = 0; round < 10; round++) {
        struct bytes old = content_new(round % 2 ? CONTENT_TEXT : CONTENT_RANDOM, 200000);
        struct bytes new_ = bytes_copy(old.p, old.n);
        struct bytes lines = bytes_copy(new_.p + 50000, 800); /* some 20 lines */
        bytes_splice(&new_, 50000, 800, NULL, 0);
        bytes_splice(&new_, round < 5 ? 150000 : 20000, 0, lines.p, lines.n);
        struct tally t = check_pair(&old, &new_, plain, SIZE_MAX);
        assert_true(t.copies >= 1);
        assert_true(t.literal < 64);
        assert_true(t.encoded < 100);
        bytes_free(&old);
        bytes_free(&new_);
        bytes_free(&lines);
    }
}

static void swapped_parts_are_copied(void **unused)
{
    struct bytes old = content_new(CONTENT_TEXT, 300000), new_ = bytes_copy(old.p, old.n);
    memcpy(new_.p + 40000, old.p + 200000, 800);
    memcpy(new_.p + 200000, old.p + 40000, 800);
    struct tally t = check_pair(&old, &new_, plain, SIZE_MAX);
    assert_in_range(t.copied, 1400, 1600);
    assert_true(t.literal < 100);
    bytes_free(&old);
    bytes_free(&new_);
}

static void blocks_in_reverse_order(void **unused)
{
    struct bytes old = content_new(CONTENT_RANDOM, 64 * 4096), new_ = bytes_new(old.n);
    for (size_t i = 0; i < 64; i++)
        memcpy(new_.p + i * 4096, old.p + (63 - i) * 4096, 4096);
    struct tally t = check_pair(&old, &new_, plain, SIZE_MAX);
    assert_true(t.literal <= 4); /* a byte at an end may be equal by chance */
    assert_in_range(t.copies, 63, 64);
    assert_true(t.encoded < 63 * 14);
    bytes_free(&old);
    bytes_free(&new_);
}

static void pasted_text_is_copied(void **unused)
{
    struct bytes old = content_new(CONTENT_TEXT, 100000), new_ = bytes_copy(old.p, old.n);
    struct bytes part = bytes_copy(old.p + 40000, 3000);
    bytes_splice(&new_, 50000, 0, part.p, part.n);
    struct tally t = check_pair(&old, &new_, plain, SIZE_MAX);
    assert_true(t.literal < 64);
    assert_true(t.copied > 2900);
    bytes_free(&old);
    bytes_free(&new_);
    bytes_free(&part);
}

static void another_file_is_one_literal(void **unused)
{
    for (int same_size = 0; same_size < 2; same_size++) {
        struct bytes old = content_new(CONTENT_RANDOM, 3 * MIB);
        struct bytes new_ = content_new(CONTENT_RANDOM, same_size ? 3 * MIB : 3 * MIB - 12345);
        struct tally t = check_pair(&old, &new_, plain, SIZE_MAX);
        assert_true(t.edits <= 3);
        assert_true(t.encoded < new_.n + 64);
        bytes_free(&old);
        bytes_free(&new_);
    }
}

/* Different programs share short phrases; they must not become a swarm of operations. */
static void unrelated_text_has_few_copies(void **unused)
{
    struct bytes old = content_new(CONTENT_TEXT, MIB), new_ = content_new(CONTENT_TEXT, MIB);
    struct tally t = check_pair(&old, &new_, plain, SIZE_MAX);
    assert_true(t.encoded + 24 * t.operations < new_.n + 1000);
    bytes_free(&old);
    bytes_free(&new_);
}

/* Content that defeats naive matching: work must stay linear and deltas small. */
static void repetitive_content(void **unused)
{
    static const enum content kinds[] = {CONTENT_ZEROS, CONTENT_ONES, CONTENT_PERIODIC,
                                         CONTENT_BLOCKS};
    for (unsigned i = 0; i < 4; i++) {
        struct bytes old = content_new(kinds[i], 8 * MIB), new_ = bytes_copy(old.p, old.n);
        for (size_t k = 40; k-- > 0;) {
            struct bytes piece = content_new(CONTENT_RANDOM, 70);
            bytes_splice(&new_, scattered_place(k, 40, 8 * MIB), random_below(200), piece.p,
                         piece.n);
            bytes_free(&piece);
        }
        struct tally t = check_pair(&old, &new_, plain, SIZE_MAX);
        assert_true(t.literal <= 40 * 70 + (kinds[i] == CONTENT_BLOCKS ? 40 * 400 : 40 * 100));
        check_pair(&new_, &old, plain, SIZE_MAX);
        bytes_free(&old);
        bytes_free(&new_);
    }
}

/* Every part of these contents occurs thousands of times. Where a part was written anew in another
 * order, all guesses are wrong and lead away from the alignment; there must be a way back. */
static void the_way_back_among_repeated_blocks(void **unused)
{
    enum { PLACES = 5, BLOCK = 64, PART = 20 * BLOCK };
    for (unsigned round = 0; round < 60; round++) {
        struct bytes old = content_new(CONTENT_BLOCKS, MIB), new_ = bytes_copy(old.p, old.n);
        for (size_t k = PLACES; k-- > 0;) {
            struct bytes part = bytes_new(PART);
            for (size_t at = 0; at < PART; at += BLOCK)
                memcpy(part.p + at, old.p + random_below(MIB / BLOCK) * BLOCK, BLOCK);
            bytes_splice(&new_, scattered_place(k, PLACES, MIB), random_below(200), part.p, PART);
            bytes_free(&part);
        }
        struct tally t = check_pair(&old, &new_, plain, SIZE_MAX);
        assert_true(t.literal + t.copied <= PLACES * (PART + 2000));
        bytes_free(&old);
        bytes_free(&new_);
    }
}

static void zeros_are_not_written(void **unused)
{
    struct bytes old = content_new(CONTENT_RANDOM, MIB), new_ = bytes_copy(old.p, old.n);
    memset(new_.p + 1000, 0, 500000);
    struct tally t = check_pair(&old, &new_, plain, SIZE_MAX);
    assert_int_equal(t.literal, 0);
    assert_true(t.encoded < 20);
    struct bytes hole = content_new(CONTENT_ZEROS, 3 * MIB);
    bytes_splice(&new_, 700000, 0, hole.p, hole.n);
    t = check_pair(&old, &new_, plain, SIZE_MAX);
    assert_int_equal(t.literal, 0);
    assert_true(t.encoded < 40);
    bytes_free(&hole);
    bytes_free(&old);
    bytes_free(&new_);
}

/* The memory bound makes the search coarser, not the result wrong. */
static void a_small_index_still_finds_long_parts(void **unused)
{
    struct bytes old = content_new(CONTENT_RANDOM, 4 * MIB), new_ = bytes_copy(old.p, old.n);
    for (size_t i = 8; i-- > 0;)
        bytes_splice(&new_, scattered_place(i, 8, 4 * MIB), 0, "inserted", 8);
    struct tally t = check_pair(&old, &new_, plain, 8192);
    assert_true(t.literal < 100);
    t = check_pair(&old, &new_, plain, 0); /* no search at all */
    assert_true(t.encoded > MIB);
    bytes_free(&old);
    bytes_free(&new_);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_changes_come_back),
        cmocka_unit_test(unrelated_contents_come_back),
        cmocka_unit_test(every_small_pair_of_sizes),
        cmocka_unit_test(all_tiny_contents),
        cmocka_unit_test(the_result_is_always_the_same),
        cmocka_unit_test(equal_contents_give_nothing),
        cmocka_unit_test(one_change_in_place),
        cmocka_unit_test(one_insertion),
        cmocka_unit_test(scattered_insertions),
        cmocka_unit_test(scattered_changes_of_every_sort),
        cmocka_unit_test(a_shift_without_change_of_size),
        cmocka_unit_test(a_moved_part_is_copied),
        cmocka_unit_test(swapped_parts_are_copied),
        cmocka_unit_test(blocks_in_reverse_order),
        cmocka_unit_test(pasted_text_is_copied),
        cmocka_unit_test(another_file_is_one_literal),
        cmocka_unit_test(unrelated_text_has_few_copies),
        cmocka_unit_test(repetitive_content),
        cmocka_unit_test(the_way_back_among_repeated_blocks),
        cmocka_unit_test(zeros_are_not_written),
        cmocka_unit_test(a_small_index_still_finds_long_parts),
    };
    seed_from_environment();
    return cmocka_run_group_tests_name("diff", tests, NULL, NULL);
}
