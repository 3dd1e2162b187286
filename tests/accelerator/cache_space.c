/* SPDX-License-Identifier: Apache-2.0 */
/* The allocator of a segment against a map of bytes: nothing is given out twice, everything given
 * back can be had again, and a block is refused only if there is no gap for it. */
#include "tests/accelerator/cache_support.h"

#include "tests/accelerator/seed.h"

enum { BLOCKS = 300, END = 20000, STEPS = 20000 };

struct block {
    uint32_t at;
    uint64_t count;
};

static uint8_t taken[END];

static void mark(const struct block *block, uint8_t value)
{
    for (uint64_t i = block->at; i < block->at + block->count; i++) {
        assert_int_equal(taken[i], !value);
        taken[i] = value;
    }
}

static uint64_t longest_gap(uint64_t end)
{
    uint64_t gap = 0, best = 0;
    for (uint64_t i = 0; i < end; i++) {
        gap = taken[i] ? 0 : gap + 1;
        best = gap > best ? gap : best;
    }
    return best;
}

static uint64_t used(uint64_t end)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < end; i++)
        count += taken[i];
    return count;
}

static void start(struct qa_space *space, uint64_t end)
{
    memset(taken, 0, sizeof taken);
    qa_space_init(space);
    assert_int_equal(qa_space_extend(space, end), 0);
    assert_int_equal(qa_space_claim(space, 0, 4), 1);
    mark(&(struct block){.at = 0, .count = 4}, 1);
}

static void random_blocks(void **state)
{
    struct qa_space space;
    struct block blocks[BLOCKS] = {{0}};
    unsigned seed = test_seed();
    uint64_t end = END / 4;
    start(&space, end);
    for (int step = 0; step < STEPS; step++) {
        struct block *block = &blocks[rand_r(&seed) % BLOCKS];
        if (block->at) {
            mark(block, 0);
            qa_space_give(&space, block->at, block->count);
            block->at = 0;
        } else {
            block->count = 1 + (uint64_t)rand_r(&seed) % (rand_r(&seed) % 20 ? 12 : 600);
            block->at = rand_r(&seed) % 3 ? qa_space_take(&space, block->count)
                                          : qa_space_take_high(&space, block->count);
            if (block->at)
                mark(block, 1);
            else
                assert_true(longest_gap(end) < block->count);
        }
        if (step % 1000 == 0) {
            assert_int_equal(qa_space_used(&space), used(end));
            end = end + 1000 < END ? end + 1000 : end;
            assert_int_equal(qa_space_extend(&space, end), 0);
        }
    }
    qa_space_finish(&space);
}

/* All is given back: one block of everything can be had. */
static void neighbours_grow_together(void **state)
{
    struct qa_space space;
    uint32_t at[999];
    start(&space, 1003);
    for (int i = 0; i < 999; i++)
        assert_int_not_equal(at[i] = qa_space_take(&space, 1), 0);
    assert_int_equal(qa_space_take(&space, 1), 0);
    for (int i = 0; i < 999; i += 2)
        qa_space_give(&space, at[i], 1);
    assert_int_equal(qa_space_take(&space, 2), 0);
    for (int i = 1; i < 999; i += 2)
        qa_space_give(&space, at[i], 1);
    assert_int_equal(qa_space_take(&space, 999), 4);
    qa_space_finish(&space);
}

static void claims_must_be_free_and_within(void **state)
{
    struct qa_space space;
    start(&space, 100);
    assert_int_equal(qa_space_claim(&space, 3, 1), 0);
    assert_int_equal(qa_space_claim(&space, 90, 10), 1);
    assert_int_equal(qa_space_claim(&space, 99, 1), 0);
    assert_int_equal(qa_space_claim(&space, 80, 11), 0);
    assert_int_equal(qa_space_claim(&space, 100, 1), 0);
    assert_int_equal(qa_space_claim(&space, 99, UINT64_MAX), 0);
    assert_int_equal(qa_space_claim(&space, UINT64_MAX, 2), 0);
    assert_int_equal(qa_space_claim(&space, 50, 0), 0);
    assert_int_equal(qa_space_claim(&space, 10, 5), 1); /* below what was claimed before */
    assert_int_equal(qa_space_used(&space), 19);
    assert_int_equal(qa_space_take(&space, 75), 15);
    assert_int_equal(qa_space_take(&space, 7), 0);
    assert_int_equal(qa_space_take(&space, 6), 4);
    assert_int_equal(qa_space_take(&space, 1), 0);
    qa_space_finish(&space);
}

static int fail_all(size_t size) { return 1; }

static void without_memory_blocks_are_still_given_back(void **state)
{
    struct qa_space space;
    start(&space, 100);
    uint32_t at = qa_space_take(&space, 50);
    qr_set_allocation_hook(fail_all);
    qa_space_give(&space, at, 50);
    assert_int_equal(qa_space_extend(&space, 100000), QALLOW_E_NO_MEMORY);
    qr_set_allocation_hook(NULL);
    assert_int_equal(qa_space_take(&space, 96), 4);
    qa_space_finish(&space);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_blocks),
        cmocka_unit_test(neighbours_grow_together),
        cmocka_unit_test(claims_must_be_free_and_within),
        cmocka_unit_test(without_memory_blocks_are_still_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
