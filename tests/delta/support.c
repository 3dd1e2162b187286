/* SPDX-License-Identifier: Apache-2.0 */
/* What the delta tests share; see support.h. The reference here shares no code with the decoder. */
#include "tests/delta/support.h"

#include "tests/random.h"

uint64_t test_seed;
static uint64_t state;

void seed_from_environment(void)
{
    const char *text = getenv("QALLOW_SEED");
    FILE *file = text ? NULL : fopen("/dev/urandom", "rb");
    test_seed = text ? strtoull(text, NULL, 0) : 1;
    if (file) {
        if (fread(&test_seed, sizeof test_seed, 1, file) != 1)
            test_seed = 1;
        fclose(file);
    }
    state = test_seed;
    printf("QALLOW_SEED=%llu\n", (unsigned long long)test_seed);
}

uint64_t random_u64(void) { return next_random(&state); }

uint64_t random_below(uint64_t limit) { return random_u64() % limit; }

unsigned rounds(unsigned usual)
{
    const char *text = getenv("QALLOW_ROUNDS");
    return text ? (unsigned)strtoul(text, NULL, 0) : usual;
}

struct bytes bytes_new(size_t n)
{
    struct bytes b = {malloc(n ? n : 1), n};
    assert_non_null(b.p);
    return b;
}

struct bytes bytes_copy(const void *p, size_t n)
{
    struct bytes b = bytes_new(n);
    if (n)
        memcpy(b.p, p, n);
    return b;
}

void bytes_free(struct bytes *b)
{
    free(b->p);
    *b = (struct bytes){0};
}

void bytes_splice(struct bytes *b, size_t at, size_t old_length, const void *p, size_t n)
{
    struct bytes r = bytes_new(b->n - old_length + n);
    memcpy(r.p, b->p, at);
    if (n)
        memcpy(r.p + at, p, n);
    memcpy(r.p + at + n, b->p + at + old_length, b->n - at - old_length);
    bytes_free(b);
    *b = r;
}

/* --- content --- */

static void fill_random(uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)random_u64();
}

/* Lines that look like source code: words from a small set, indentation, repeated phrases. */
static void fill_text(uint8_t *p, size_t n)
{
    static const char *const words[] = {"static ", "int ",  "result", " = ",  "return ", "struct ",
                                        "if (",    ")",     " {",     "}",    "size_t ", "->",
                                        "length",  "count", "offset", "0x%x", "++",      ";"};
    for (size_t at = 0; at < n;) {
        char line[200];
        int length = snprintf(line, sizeof line, "%*s", (int)(4 * random_below(6)), "");
        for (uint64_t w = random_below(12); w > 0; w--)
            length += snprintf(line + length, sizeof line - (size_t)length, "%s",
                               words[random_below(sizeof words / sizeof words[0])]);
        if (random_below(3) == 0)
            length += snprintf(line + length, sizeof line - (size_t)length, "v%u",
                               (unsigned)random_below(100000));
        line[length++] = '\n';
        size_t some = n - at < (size_t)length ? n - at : (size_t)length;
        memcpy(p + at, line, some);
        at += some;
    }
}

static void fill_periodic(uint8_t *p, size_t n)
{
    uint8_t pattern[100];
    size_t period = 1 + random_below(sizeof pattern);
    fill_random(pattern, period);
    for (size_t i = 0; i < n; i++)
        p[i] = pattern[i % period];
}

/* A few different blocks, each many times. */
static void fill_blocks(uint8_t *p, size_t n)
{
    uint8_t blocks[4][64];
    fill_random(blocks[0], sizeof blocks);
    for (size_t at = 0; at < n; at += 64)
        memcpy(p + at, blocks[random_below(4)], n - at < 64 ? n - at : 64);
}

static void fill_sparse(uint8_t *p, size_t n)
{
    memset(p, 0, n);
    for (size_t at = random_below(200); at < n; at += 1 + random_below(200))
        p[at] = (uint8_t)(1 + random_below(255));
}

static void fill_floats(uint8_t *p, size_t n)
{
    for (size_t at = 0; at + 4 <= n; at += 4) {
        float value = (float)random_below(100000) / 100000;
        memcpy(p + at, &value, 4);
    }
    memset(p + n / 4 * 4, 0, n % 4);
}

struct bytes content_new(enum content kind, size_t n)
{
    struct bytes b = bytes_new(n);
    switch (kind) {
    case CONTENT_RANDOM:
        fill_random(b.p, n);
        break;
    case CONTENT_TEXT:
        fill_text(b.p, n);
        break;
    case CONTENT_PERIODIC:
        fill_periodic(b.p, n);
        break;
    case CONTENT_BLOCKS:
        fill_blocks(b.p, n);
        break;
    case CONTENT_SPARSE:
        fill_sparse(b.p, n);
        break;
    case CONTENT_FLOATS:
        fill_floats(b.p, n);
        break;
    case CONTENT_ONES:
        memset(b.p, 0xff, n);
        break;
    default:
        memset(b.p, 0, n);
        break;
    }
    return b;
}

/* A length that is mostly small. */
static size_t some_length(size_t most)
{
    size_t length = (size_t)(UINT64_C(1) << random_below(17));
    length = random_below(length + 1);
    return length < most ? length : most;
}

static void move_part(struct bytes *b, int keep_original)
{
    size_t from = random_below(b->n + 1), length = some_length(b->n - from);
    struct bytes part = bytes_copy(b->p + from, length);
    if (!keep_original)
        bytes_splice(b, from, length, NULL, 0);
    bytes_splice(b, random_below(b->n + 1), 0, part.p, part.n);
    bytes_free(&part);
}

static void scatter(struct bytes *b)
{
    size_t from = random_below(b->n + 1), span = some_length(b->n - from);
    size_t step = 1 + random_below(40), width = 1 + random_below(step);
    for (size_t at = from; at + width <= from + span; at += 1 + random_below(2 * step))
        fill_random(b->p + at, width);
}

void mutate(struct bytes *b)
{
    size_t at = random_below(b->n + 1), length = some_length(b->n - at);
    struct bytes piece;
    switch (random_below(9)) {
    case 0: /* overwrite */
        fill_random(b->p + at, length);
        break;
    case 1: /* insert */
    case 2:
        piece = content_new((enum content)random_below(CONTENT_KINDS), some_length(1 << 16));
        bytes_splice(b, at, 0, piece.p, piece.n);
        bytes_free(&piece);
        break;
    case 3:
        bytes_splice(b, at, length, NULL, 0);
        break;
    case 4:
        move_part(b, 0);
        break;
    case 5:
        move_part(b, 1);
        break;
    case 6:
        memset(b->p + at, 0, length);
        break;
    case 7:
        scatter(b);
        break;
    case 8: /* replace */
        piece = content_new((enum content)random_below(CONTENT_KINDS), some_length(1 << 12));
        bytes_splice(b, at, length, piece.p, piece.n);
        bytes_free(&piece);
        break;
    }
}

/* --- encoding --- */

struct parts encode(struct qr_edits *list, const struct bytes *old, struct encoding how)
{
    struct parts parts = {0};
    uint64_t old_end = 0;
    size_t next = 0;
    struct bytes out = bytes_new(how.capacity);
    size_t n;
    while ((n = qr_ops_encode(list, &next, &old_end, how.with_old ? old->p : NULL, how.cost, out.p,
                              how.capacity)) > 0) {
        assert_true(n <= how.capacity);
        parts.part = realloc(parts.part, (parts.count + 1) * sizeof *parts.part);
        assert_non_null(parts.part);
        parts.part[parts.count++] = bytes_copy(out.p, n);
    }
    bytes_free(&out);
    assert_int_equal(next, list->count);
    return parts;
}

size_t parts_bytes(const struct parts *parts)
{
    size_t sum = 0;
    for (size_t i = 0; i < parts->count; i++)
        sum += parts->part[i].n;
    return sum;
}

void parts_free(struct parts *parts)
{
    for (size_t i = 0; i < parts->count; i++)
        bytes_free(&parts->part[i]);
    free(parts->part);
    *parts = (struct parts){0};
}

/* --- the second implementation --- */

struct input {
    const uint8_t *p;
    size_t n;
    int bad;
};

static uint64_t take_varint(struct input *in)
{
    uint64_t v = 0;
    for (int i = 0; i < 10 && in->n; i++) {
        uint64_t b = *in->p++;
        in->n--;
        if (i == 9 && b > 1) /* more than 64 bits */
            break;
        v |= (b & 0x7f) << (7 * i);
        if (b < 0x80) {
            if (i && b == 0) /* longer than needed */
                break;
            return v;
        }
    }
    in->bad = 1;
    return 0;
}

static const uint8_t *take(struct input *in, uint64_t n)
{
    static const uint8_t nothing[1];
    if (in->bad || n > in->n) {
        in->bad = 1;
        return nothing;
    }
    const uint8_t *p = in->p;
    in->p += n;
    in->n -= n;
    return p;
}

static int emit(struct reference *r, const uint8_t *p, uint64_t n)
{
    if (n > r->capacity - r->size)
        return 0;
    if (n && p)
        memcpy(r->out + r->size, p, n);
    else if (n)
        memset(r->out + r->size, 0, n);
    r->size += n;
    return 1;
}

static int emit_taken(struct reference *r, struct input *in, uint64_t n)
{
    const uint8_t *p = take(in, n);
    return !in->bad && emit(r, p, n);
}

static int emit_masked(struct reference *r, struct input *in, uint64_t n)
{
    const uint8_t *mask = take(in, n / 8 + (n % 8 != 0));
    if (in->bad || n > r->old_size - r->old_end)
        return 0;
    uint64_t changed = 0;
    for (uint64_t i = 0; i < n; i++) {
        int bit = mask[i / 8] >> (i % 8) & 1;
        const uint8_t *from = bit ? take(in, 1) : r->old + r->old_end + i;
        changed += (uint64_t)bit;
        if (in->bad || !emit(r, from, 1))
            return 0;
    }
    for (uint64_t i = n; i % 8; i++)
        if (mask[i / 8] >> (i % 8) & 1)
            return 0;
    return changed != 0;
}

static int reference_op(struct reference *r, struct input *in)
{
    uint64_t gap = take_varint(in), head = take_varint(in), n = head >> 3;
    unsigned kind = head & 7;
    if (in->bad || gap > r->old_size - r->old_end || !emit(r, r->old + r->old_end, gap))
        return 0;
    r->old_end += gap;
    uint64_t replaced = kind == 5 ? 0 : n;
    if (replaced > r->old_size - r->old_end)
        return 0;
    uint64_t length, from;
    int ok = 0;
    switch (kind) {
    case 0:
        ok = n && emit_taken(r, in, n);
        break;
    case 1:
        ok = n && emit_masked(r, in, n);
        break;
    case 2:
        length = take_varint(in);
        ok = (n || length) && emit_taken(r, in, length);
        break;
    case 3:
        ok = n != 0;
        break;
    case 4:
    case 5:
        ok = n && emit(r, NULL, n);
        break;
    case 6:
        length = take_varint(in);
        from = take_varint(in);
        ok = !in->bad && from <= r->old_size && length <= r->old_size - from &&
             !(length == n && (n == 0 || from == r->old_end)) && emit(r, r->old + from, length);
        break;
    }
    r->old_end += replaced;
    r->operations++;
    return ok && !in->bad;
}

int reference_apply(struct reference *r, const uint8_t *p, size_t n, int last)
{
    struct input in = {p, n, 0};
    while (in.n)
        if (!reference_op(r, &in))
            return 0;
    return !last || emit(r, r->old + r->old_end, r->old_size - r->old_end);
}

/* --- the property --- */

static size_t longest_zeros(const uint8_t *p, size_t n)
{
    size_t longest = 0, run = 0;
    for (size_t i = 0; i < n; i++) {
        run = p[i] ? 0 : run + 1;
        longest = run > longest ? run : longest;
    }
    return longest;
}

/* The list is as delta.h says, and gives new. */
static void check_edits(const struct qr_edits *list, const struct bytes *old,
                        const struct bytes *new_, struct tally *t)
{
    struct bytes out = bytes_new(new_->n);
    struct reference r = {.old = old->p, .old_size = old->n, .out = out.p, .capacity = new_->n};
    for (size_t i = 0; i < list->count; i++) {
        const struct qr_edit *e = &list->items[i];
        assert_true(e->offset >= r.old_end && e->offset + e->old_length <= old->n);
        assert_true(e->old_length || e->new_length);
        assert_true(emit(&r, old->p + r.old_end, e->offset - r.old_end));
        r.old_end = e->offset + e->old_length;
        if (e->source == QR_COPY) {
            assert_true(e->from + e->new_length <= old->n);
            assert_true(emit(&r, old->p + e->from, e->new_length));
            t->copies++;
            t->copied += e->new_length;
        } else if (e->source == QR_ZEROS) {
            assert_true(emit(&r, NULL, e->new_length));
            t->zeros += e->new_length;
        } else {
            if (e->new_length)
                assert_true(e->bytes >= new_->p && e->bytes + e->new_length <= new_->p + new_->n);
            assert_true(longest_zeros(e->bytes, e->new_length) < 32);
            assert_true(emit(&r, e->bytes, e->new_length));
            t->literal += e->new_length;
        }
    }
    assert_true(emit(&r, old->p + r.old_end, old->n - r.old_end));
    assert_int_equal(r.size, new_->n);
    assert_memory_equal(out.p, new_->p, new_->n);
    t->edits = list->count;
    bytes_free(&out);
}

static void check_by_reference(const struct parts *parts, const struct bytes *old,
                               const struct bytes *new_, struct tally *t)
{
    struct bytes out = bytes_new(new_->n);
    struct reference r = {.old = old->p, .old_size = old->n, .out = out.p, .capacity = new_->n};
    for (size_t i = 0; i < parts->count; i++)
        assert_true(reference_apply(&r, parts->part[i].p, parts->part[i].n, 0));
    assert_true(reference_apply(&r, NULL, 0, 1));
    assert_int_equal(r.size, new_->n);
    assert_memory_equal(out.p, new_->p, new_->n);
    t->operations = r.operations;
    bytes_free(&out);
}

static void check_in_place(const struct parts *parts, const struct bytes *old,
                           const struct bytes *new_)
{
    struct bytes page = bytes_copy(old->p, old->n);
    uint64_t old_end = 0;
    for (size_t i = 0; i < parts->count; i++)
        assert_int_equal(qr_apply_in_place(page.p, page.n,
                                           qr_cursor(parts->part[i].p, parts->part[i].n), &old_end),
                         0);
    assert_memory_equal(page.p, new_->p, new_->n);
    bytes_free(&page);
}

static void check_apply(const struct parts *parts, const struct bytes *old,
                        const struct bytes *new_)
{
    struct bytes out = bytes_new(new_->n);
    struct qr_ops_check check = {.old_size = old->n};
    struct qr_apply apply = {.old = old->p, .old_size = old->n, .new_ = out.p, .new_size = new_->n};
    for (size_t i = 0; i < parts->count; i++) {
        struct qr_cursor part = qr_cursor(parts->part[i].p, parts->part[i].n);
        assert_int_equal(qr_ops_check(&check, part), 0);
        assert_int_equal(qr_apply_part(&apply, part), 0);
    }
    assert_int_equal(qr_ops_new_size(&check), new_->n);
    assert_int_equal(qr_apply_end(&apply), 0);
    assert_memory_equal(out.p, new_->p, new_->n);
    if (!check.moves)
        check_in_place(parts, old, new_);
    bytes_free(&out);
}

struct tally check_pair(const struct bytes *old, const struct bytes *new_, struct encoding how,
                        size_t max_index_bytes)
{
    struct tally t = {0};
    struct qr_edits list = {0};
    assert_int_equal(qr_diff(old->p, old->n, new_->p, new_->n, max_index_bytes, &list), 0);
    check_edits(&list, old, new_, &t);
    struct parts parts = encode(&list, old, how);
    check_by_reference(&parts, old, new_, &t);
    check_apply(&parts, old, new_);
    t.encoded = parts_bytes(&parts);
    parts_free(&parts);
    qr_edits_finish(&list);
    return t;
}

void check_operations(const struct bytes *ops, const struct bytes *old)
{
    static uint8_t wanted[1 << 20];
    struct qr_ops_check check = {.old_size = old->n};
    struct qr_cursor part = qr_cursor(ops->p, ops->n);
    int result = qr_ops_check(&check, part);
    uint64_t size = result ? 0 : qr_ops_new_size(&check);
    if (size > sizeof wanted)
        return; /* valid, but the reference would need too much memory */
    struct bytes out = bytes_new(result ? 5000 : size);
    struct reference r = {
        .old = old->p, .old_size = old->n, .out = wanted, .capacity = sizeof wanted};
    int valid = reference_apply(&r, ops->p, ops->n, 1);
    if (result == 0) {
        assert_true(valid);
        assert_int_equal(r.size, size);
    } else {
        assert_true(result == QALLOW_E_SERIALIZATION || result == QALLOW_E_INVALID_DELTA);
        assert_true(!valid);
    }
    struct qr_apply apply = {.old = old->p, .old_size = old->n, .new_ = out.p, .new_size = out.n};
    int applied = qr_apply_part(&apply, part);
    applied = applied ? applied : qr_apply_end(&apply);
    assert_true((result == 0) == (applied == 0));
    if (result == 0)
        assert_memory_equal(out.p, wanted, size);
    struct bytes page = bytes_copy(old->p, old->n);
    uint64_t old_end = 0;
    int in_place = qr_apply_in_place(page.p, page.n, part, &old_end);
    assert_true((result == 0 && !check.moves) == (in_place == 0));
    if (in_place == 0)
        assert_memory_equal(page.p, wanted, page.n);
    bytes_free(&page);
    bytes_free(&out);
}
