/* SPDX-License-Identifier: Apache-2.0 */
/* Edit lists, the encoder's choices, the decoder on hostile bytes, applying in memory. */
#include "runtime/os.h"
#include "tests/delta/support.h"

static const struct qr_encode_cost no_masks = {4, 0};
static const struct qr_encode_cost masks = {4, 1};

static struct qr_edit overwrite(uint64_t offset, uint64_t n, const uint8_t *bytes)
{
    return (struct qr_edit){.offset = offset, .old_length = n, .new_length = n, .bytes = bytes};
}

/* Decodes all of `b`; returns the number of operations, or the error. */
static int decode(const uint8_t *p, size_t n, struct qr_op *ops, int most)
{
    struct qr_cursor cursor = qr_cursor(p, n);
    uint64_t old_end = 0;
    int count = 0, found;
    struct qr_op op;
    while ((found = qr_op_next(&cursor, &old_end, &op)) == 1) {
        if (count < most)
            ops[count] = op;
        count++;
    }
    return found < 0 ? found : count;
}

static int encode_and_decode(struct qr_edits *list, const struct bytes *old,
                             struct qr_encode_cost cost, struct qr_op *ops, int most,
                             struct bytes *out)
{
    struct parts parts = encode(list, old ? old : &(struct bytes){NULL, 0},
                                (struct encoding){cost, 1 << 16, old != NULL});
    assert_int_equal(parts.count, 1);
    *out = bytes_copy(parts.part[0].p, parts.part[0].n);
    parts_free(&parts);
    return decode(out->p, out->n, ops, most);
}

/* --- edit lists --- */

static void adjacent_overwrites_are_merged(void **unused)
{
    uint8_t bytes[30] = {0};
    struct qr_edits list = {0};
    assert_int_equal(qr_edits_add(&list, overwrite(5, 10, bytes)), 0);
    assert_int_equal(qr_edits_add(&list, overwrite(15, 10, bytes + 10)), 0);
    assert_int_equal(list.count, 1);
    assert_int_equal(list.items[0].old_length, 20);
    assert_int_equal(qr_edits_add(&list, overwrite(25, 5, bytes)), 0);     /* other memory */
    assert_int_equal(qr_edits_add(&list, overwrite(31, 5, bytes + 5)), 0); /* a gap */
    assert_int_equal(list.count, 3);
    assert_int_equal(qr_edits_add(&list, overwrite(36, 0, bytes + 10)), 0); /* nothing */
    assert_int_equal(list.count, 3);
    qr_edits_finish(&list);
    assert_null(list.items);
    assert_int_equal(list.count, 0);
}

/* --- the encoder's choices --- */

static void small_gaps_are_written_out(void **unused)
{
    struct bytes old = content_new(CONTENT_RANDOM, 100), new_ = bytes_copy(old.p, old.n), out;
    struct qr_op ops[4];
    new_.p[10] ^= 1;
    new_.p[14] ^= 1;
    new_.p[60] ^= 1;
    for (int with_old = 0; with_old < 2; with_old++) {
        struct qr_edits list = {0};
        qr_edits_add(&list, overwrite(10, 1, new_.p + 10));
        qr_edits_add(&list, overwrite(14, 1, new_.p + 14));
        qr_edits_add(&list, overwrite(60, 1, new_.p + 60));
        int count = encode_and_decode(&list, with_old ? &old : NULL, no_masks, ops, 4, &out);
        assert_int_equal(count, with_old ? 2 : 3); /* without old the bytes are not known */
        if (with_old) {
            assert_int_equal(ops[0].offset, 10);
            assert_int_equal(ops[0].new_length, 5);
        }
        bytes_free(&out);
        qr_edits_finish(&list);
    }
    bytes_free(&old);
    bytes_free(&new_);
}

static void scattered_bytes_become_a_mask(void **unused)
{
    struct bytes old = content_new(CONTENT_RANDOM, 4000), new_ = bytes_copy(old.p, old.n), out;
    for (size_t i = 0; i < 4000; i += 4)
        new_.p[i] ^= 1;
    struct qr_edits list = {0};
    qr_edits_add(&list, overwrite(0, 4000, new_.p));
    struct qr_op op;
    assert_int_equal(encode_and_decode(&list, &old, masks, &op, 1, &out), 4);
    assert_int_equal(op.kind, QR_OP_MASK);
    assert_true(out.n < 1000 + 500 + 20);
    bytes_free(&out);
    qr_edits_finish(&list);

    /* Without masks the same is one overwrite. */
    qr_edits_add(&list, overwrite(0, 4000, new_.p));
    assert_int_equal(encode_and_decode(&list, &old, no_masks, &op, 1, &out), 1);
    assert_int_equal(op.kind, QR_OP_OVERWRITE);
    bytes_free(&out);
    qr_edits_finish(&list);
    bytes_free(&old);
    bytes_free(&new_);
}

/* A page of numbers of which some parts changed in their low bytes, some whole, some not at all. */
static void stretches_of_scattered_bytes(void **unused)
{
    for (unsigned round = 0; round < rounds(30); round++) {
        struct bytes old = content_new(CONTENT_RANDOM, 60000), new_ = bytes_copy(old.p, old.n);
        size_t changed = 0;
        for (size_t at = random_below(300); at + 6000 < new_.n; at += 1000 + random_below(15000)) {
            size_t end = at + random_below(new_.n - at), step = 1 + random_below(12);
            for (size_t i = at; i < end; i += step)
                changed += (new_.p[i]++, 1);
        }
        struct tally t = check_pair(
            &old, &new_, (struct encoding){masks, round % 2 ? 1 << 16 : 5000, 1}, SIZE_MAX);
        assert_true(t.encoded <= changed + new_.n / 8 + 2000);
        bytes_free(&old);
        bytes_free(&new_);
    }
}

static void unchanged_bytes_of_an_edit_are_left_out(void **unused)
{
    struct bytes old = content_new(CONTENT_RANDOM, 5000), new_ = bytes_copy(old.p, old.n), out;
    new_.p[2000] ^= 1;
    struct qr_edits list = {0};
    struct qr_op op;
    qr_edits_add(&list, overwrite(0, 5000, new_.p));
    assert_int_equal(encode_and_decode(&list, &old, no_masks, &op, 1, &out), 1);
    assert_int_equal(op.offset, 2000);
    assert_int_equal(op.new_length, 1);
    bytes_free(&out);
    qr_edits_finish(&list);
    bytes_free(&old);
    bytes_free(&new_);
}

/* Every kind, byte by byte, as in the comment of delta.h. */
static void the_bytes_are_as_documented(void **unused)
{
    static const uint8_t expected[] = {
        1, 3 << 3 | 0, 'a', 'b',        'c', /* keep 1, overwrite 3 */
        2, 4 << 3 | 2, 2,   'd',        'e', /* keep 2, replace 4 by 2 */
        0, 5 << 3 | 3,                       /* remove 5 */
        1, 6 << 3 | 4,                       /* keep 1, zero 6 */
        0, 7 << 3 | 5,                       /* grow 7 */
        0, 0 << 3 | 6, 8,   9,               /* insert a copy of 8 bytes from 9 */
        0, 3 << 3 | 4, 0,   2 << 3 | 3,      /* zeros for 5 bytes, 3 of them */
    };
    const uint8_t *text = (const uint8_t *)"abcde";
    const struct qr_edit edits[] = {
        overwrite(1, 3, text),
        {.offset = 6, .old_length = 4, .new_length = 2, .bytes = text + 3},
        {.offset = 10, .old_length = 5},
        {.offset = 16, .old_length = 6, .new_length = 6, .source = QR_ZEROS},
        {.offset = 22, .new_length = 7, .source = QR_ZEROS},
        {.offset = 22, .new_length = 8, .source = QR_COPY, .from = 9},
        {.offset = 22, .old_length = 5, .new_length = 3, .source = QR_ZEROS},
        {.offset = 30, .old_length = 4, .new_length = 4, .source = QR_COPY, .from = 30}, /* none */
    };
    struct qr_edits list = {0};
    struct bytes out;
    struct qr_op ops[9];
    for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++)
        assert_int_equal(qr_edits_add(&list, edits[i]), 0);
    assert_int_equal(encode_and_decode(&list, NULL, masks, ops, 9, &out), 8);
    assert_int_equal(out.n, sizeof expected);
    assert_memory_equal(out.p, expected, sizeof expected);
    assert_int_equal(ops[5].kind, QR_OP_COPY);
    assert_int_equal(ops[5].offset, 22);
    assert_int_equal(ops[5].from, 9);
    bytes_free(&out);
    qr_edits_finish(&list);
}

static void no_room_writes_nothing(void **unused)
{
    uint8_t out[64], bytes[4] = {1, 2, 3, 4};
    struct qr_edits list = {0};
    size_t next = 0;
    uint64_t old_end = 0;
    qr_edits_add(&list, overwrite(0, 4, bytes));
    assert_int_equal(qr_ops_encode(&list, &next, &old_end, NULL, masks, out, 63), 0);
    assert_int_equal(next, 0);
    assert_true(qr_ops_encode(&list, &next, &old_end, NULL, masks, out, 64) > 0);
    assert_int_equal(next, 1);
    assert_int_equal(qr_ops_encode(&list, &next, &old_end, NULL, masks, out, 64), 0);
    qr_edits_finish(&list);
}

/* Lists that no diff makes: random edits of every source at random places. */
static void random_lists_come_back(void **unused)
{
    for (unsigned round = 0; round < rounds(3000); round++) {
        struct bytes old =
            content_new((enum content)random_below(CONTENT_KINDS), random_below(3000));
        struct bytes literal = content_new(CONTENT_RANDOM, 4000), new_ = bytes_new(100000);
        struct qr_edits list = {0};
        uint64_t at = 0;
        size_t used = 0, size = 0;
        while (used < 3000 && random_below(40)) {
            uint64_t gap = random_below(2) ? random_below(20) : random_below(300);
            if (gap > old.n - at)
                break;
            memcpy(new_.p + size, old.p + at, gap);
            size += gap;
            at += gap;
            struct qr_edit e = {.offset = at, .source = (enum qr_edit_source)random_below(3)};
            e.old_length = random_below(random_below(4) ? 30 : 600);
            e.old_length = e.old_length < old.n - at ? e.old_length : old.n - at;
            e.new_length = random_below(3) ? e.old_length : random_below(300);
            if (e.source == QR_LITERAL) {
                e.bytes = literal.p + used;
                memcpy(new_.p + size, e.bytes, e.new_length);
                used += e.new_length;
            } else if (e.source == QR_ZEROS) {
                memset(new_.p + size, 0, e.new_length);
            } else {
                e.new_length = e.new_length < old.n ? e.new_length : old.n;
                e.from = random_below(old.n - e.new_length + 1);
                memcpy(new_.p + size, old.p + e.from, e.new_length);
            }
            assert_int_equal(qr_edits_add(&list, e), 0);
            size += e.new_length;
            at += e.old_length;
            used += 1;
        }
        memcpy(new_.p + size, old.p + at, old.n - at);
        size += old.n - at;
        struct encoding how = {
            {random_below(30), (int)random_below(2)}, 64 + random_below(200), (int)random_below(2)};
        struct parts parts = encode(&list, &old, how);
        struct bytes result = bytes_new(size);
        struct reference r = {.old = old.p, .old_size = old.n, .out = result.p, .capacity = size};
        for (size_t i = 0; i < parts.count; i++)
            assert_true(reference_apply(&r, parts.part[i].p, parts.part[i].n, 0));
        assert_true(reference_apply(&r, NULL, 0, 1));
        assert_int_equal(r.size, size);
        assert_memory_equal(result.p, new_.p, size);
        bytes_free(&result);
        parts_free(&parts);
        qr_edits_finish(&list);
        bytes_free(&old);
        bytes_free(&literal);
        bytes_free(&new_);
    }
}

/* --- hostile bytes --- */

#define REFUSED(...)                                                                               \
    do {                                                                                           \
        struct bytes b =                                                                           \
            bytes_copy((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}));    \
        assert_int_equal(decode(b.p, b.n, NULL, 0), QALLOW_E_SERIALIZATION);                       \
        bytes_free(&b);                                                                            \
    } while (0)

static void malformed_operations_are_refused(void **unused)
{
    REFUSED(0);                      /* a gap alone */
    REFUSED(0, 7);                   /* kind 7, n 0 */
    REFUSED(0, 1 << 3 | 7, 1);       /* kind 7 */
    REFUSED(0, 0);                   /* n == 0: overwrite */
    REFUSED(0, 1);                   /* mask */
    REFUSED(0, 3);                   /* remove */
    REFUSED(0, 4);                   /* zero */
    REFUSED(0, 5);                   /* grow */
    REFUSED(0, 2, 0);                /* replace nothing by nothing */
    REFUSED(0, 6, 0, 0);             /* copy nothing over nothing */
    REFUSED(2, 3 << 3 | 6, 3, 2);    /* copy onto itself */
    REFUSED(0, 2 << 3 | 0, 1);       /* bytes missing */
    REFUSED(0, 0 << 3 | 2, 3, 1, 2); /* bytes missing */
    REFUSED(0, 8 << 3 | 1);          /* mask missing */
    REFUSED(0, 8 << 3 | 1, 3, 1);    /* payload missing */
    REFUSED(0, 8 << 3 | 1, 0);       /* a mask without effect */
    REFUSED(0, 3 << 3 | 1, 9, 1, 1); /* bits beyond n */
    REFUSED(0x80, 0, 1 << 3 | 3);    /* a varint longer than needed */
    REFUSED(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 1 << 3 | 3); /* > 64 bits */
    REFUSED(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1 << 3 | 3); /* offset + n */
    REFUSED(0, 0 << 3 | 6, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            1); /* from + length */
    REFUSED(1, 1 << 3 | 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
            1 << 3 | 3); /* old_end + gap */
    REFUSED(0, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
            0xff); /* a huge overwrite */
    REFUSED(0, 0xf9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0xff); /* a huge mask */
}

static void a_refused_cursor_stays_refused(void **unused)
{
    const uint8_t bytes[] = {0, 7, 0, 1 << 3 | 3};
    struct qr_cursor cursor = qr_cursor(bytes, sizeof bytes);
    uint64_t old_end = 0;
    struct qr_op op;
    assert_int_equal(qr_op_next(&cursor, &old_end, &op), QALLOW_E_SERIALIZATION);
    assert_int_equal(qr_op_next(&cursor, &old_end, &op), QALLOW_E_SERIALIZATION);
}

static void random_bytes_do_no_harm(void **unused)
{
    struct bytes old = content_new(CONTENT_RANDOM, 300);
    for (unsigned round = 0; round < rounds(20000); round++) {
        struct bytes ops = content_new(CONTENT_RANDOM, random_below(40));
        for (size_t i = 0; i < ops.n; i++)
            if (random_below(2))
                ops.p[i] &= 0x3f; /* small numbers are more often valid */
        check_operations(&ops, &old);
        bytes_free(&ops);
    }
    bytes_free(&old);
}

static void mutated_operations_do_no_harm(void **unused)
{
    for (unsigned round = 0; round < rounds(4000); round++) {
        struct bytes old =
            content_new((enum content)random_below(CONTENT_KINDS), random_below(2000));
        struct bytes new_ = bytes_copy(old.p, old.n);
        for (uint64_t i = 1 + random_below(5); i > 0; i--)
            mutate(&new_);
        if (new_.n > 3000)
            bytes_splice(&new_, 3000, new_.n - 3000, NULL, 0);
        struct qr_edits list = {0};
        assert_int_equal(qr_diff(old.p, old.n, new_.p, new_.n, SIZE_MAX, &list), 0);
        struct parts parts = encode(&list, &old, (struct encoding){masks, 1 << 16, 1});
        for (size_t i = 0; i < parts.count; i++) {
            struct bytes *ops = &parts.part[i];
            for (uint64_t k = random_below(4); k > 0; k--)
                ops->p[random_below(ops->n)] ^= (uint8_t)(1u << random_below(8));
            struct bytes cut =
                bytes_copy(ops->p, random_below(3) ? ops->n : random_below(ops->n + 1));
            check_operations(&cut, &old);
            bytes_free(&cut);
        }
        parts_free(&parts);
        qr_edits_finish(&list);
        bytes_free(&old);
        bytes_free(&new_);
    }
}

/* --- applying --- */

static void operations_beyond_the_page_are_refused(void **unused)
{
    static const uint8_t cases[][5] = {
        {11, 1 << 3 | 0, 'x'}, /* offset beyond the end */
        {9, 2 << 3 | 4},       /* zeros across the end */
        {5, 6 << 3 | 3},       /* removal across the end */
        {0, 0 << 3 | 6, 3, 8}, /* copy from across the end */
    };
    static const size_t lengths[] = {3, 2, 2, 4};
    uint8_t old[10] = {0}, out[20];
    for (size_t i = 0; i < 4; i++) {
        struct qr_cursor part = qr_cursor(cases[i], lengths[i]);
        struct qr_ops_check check = {.old_size = 10};
        assert_int_equal(qr_ops_check(&check, part), QALLOW_E_INVALID_DELTA);
        assert_string_not_equal(qallow_error_detail(), "");
        struct qr_apply apply = {old, 10, out, 20, 0, 0};
        assert_int_equal(qr_apply_part(&apply, part), QALLOW_E_INVALID_DELTA);
    }
}

static void a_wrong_size_is_refused(void **unused)
{
    const uint8_t ops[] = {4, 2 << 3 | 5}; /* two zeros after four bytes: 10 becomes 12 */
    uint8_t old[10] = {1}, out[13];
    for (uint64_t size = 0; size <= 13; size++) {
        struct qr_apply apply = {old, 10, out, size, 0, 0};
        int result = qr_apply_part(&apply, qr_cursor(ops, sizeof ops));
        result = result ? result : qr_apply_end(&apply);
        assert_int_equal(result, size == 12 ? 0 : QALLOW_E_INVALID_DELTA);
    }
}

static void a_page_beyond_all_limits_is_refused(void **unused)
{
    uint8_t ops[2 * 11];
    uint8_t *p = ops;
    for (int i = 0; i < 2; i++) { /* 2^47 + 2^60 zeros */
        *p++ = 0;
        p = qr_put_varint(p, (UINT64_C(1) << (i ? 60 : 47)) << 3 | 5);
    }
    struct qr_ops_check check = {.old_size = 5};
    assert_int_equal(qr_ops_check(&check, qr_cursor(ops, (size_t)(p - ops))),
                     QALLOW_E_INVALID_DELTA);
}

/* --- memory --- */

static int allocations_left;
static int fail_when_none_left(size_t size) { return allocations_left-- <= 0; }

static void every_failed_allocation_is_reported(void **unused)
{
    struct bytes old = content_new(CONTENT_TEXT, 60000), new_ = bytes_copy(old.p, old.n);
    struct bytes part = bytes_copy(new_.p + 5000, 9000);
    for (int i = 0; i < 40; i++)
        mutate(&new_);
    bytes_splice(&new_, new_.n / 2, 0, part.p, part.n);
    int failures = 0;
    for (int limit = 0;; limit++) {
        struct qr_edits list = {0};
        allocations_left = limit;
        qr_set_allocation_hook(fail_when_none_left);
        int result = qr_diff(old.p, old.n, new_.p, new_.n, SIZE_MAX, &list);
        qr_set_allocation_hook(NULL);
        qr_edits_finish(&list);
        if (result == 0)
            break;
        assert_int_equal(result, QALLOW_E_NO_MEMORY);
        failures++;
    }
    assert_true(failures >= 3);
    bytes_free(&part);
    bytes_free(&old);
    bytes_free(&new_);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adjacent_overwrites_are_merged),
        cmocka_unit_test(small_gaps_are_written_out),
        cmocka_unit_test(scattered_bytes_become_a_mask),
        cmocka_unit_test(stretches_of_scattered_bytes),
        cmocka_unit_test(unchanged_bytes_of_an_edit_are_left_out),
        cmocka_unit_test(the_bytes_are_as_documented),
        cmocka_unit_test(no_room_writes_nothing),
        cmocka_unit_test(random_lists_come_back),
        cmocka_unit_test(malformed_operations_are_refused),
        cmocka_unit_test(a_refused_cursor_stays_refused),
        cmocka_unit_test(random_bytes_do_no_harm),
        cmocka_unit_test(mutated_operations_do_no_harm),
        cmocka_unit_test(operations_beyond_the_page_are_refused),
        cmocka_unit_test(a_wrong_size_is_refused),
        cmocka_unit_test(a_page_beyond_all_limits_is_refused),
        cmocka_unit_test(every_failed_allocation_is_reported),
    };
    seed_from_environment();
    return cmocka_run_group_tests_name("ops", tests, NULL, NULL);
}
