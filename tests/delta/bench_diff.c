/* SPDX-License-Identifier: Apache-2.0 */
/* Times qr_diff, the encoder and applying beside memcmp and memcpy of the same bytes, in the same
 * run. Figures are GB of new content per second of processor time, the best of several rounds; "x"
 * is the diff's speed in parts of memcmp's. A table by default; --csv for machines. */
#include <time.h>

#include "tests/delta/support.h"

#define MIB ((size_t)1 << 20)

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

struct pair {
    struct bytes old, new_;
};

static void insert_some(struct bytes *b, size_t count, size_t length)
{
    for (size_t i = count; i-- > 0;) {
        struct bytes piece = content_new(CONTENT_RANDOM, length);
        bytes_splice(b, b->n / count * i + random_below(b->n / count - length), 0, piece.p, length);
        bytes_free(&piece);
    }
}

static void overwrite_some(struct bytes *b, size_t count, size_t length)
{
    for (size_t i = 0; i < count; i++) {
        size_t at = b->n / count * i + random_below(b->n / count - length + 1);
        for (size_t k = 0; k < length; k++)
            b->p[at + k] ^= (uint8_t)(1 + random_below(255));
    }
}

static struct pair equal(size_t n)
{
    struct bytes old = content_new(CONTENT_TEXT, n);
    return (struct pair){old, bytes_copy(old.p, old.n)};
}
static struct pair one_change(size_t n)
{
    struct pair p = equal(n);
    overwrite_some(&p.new_, 1, 100);
    return p;
}
static struct pair sparse(size_t n) /* 4 bytes of every 4 KiB */
{
    struct pair p = equal(n);
    overwrite_some(&p.new_, n / 4096, 4);
    return p;
}
static struct pair one_percent(size_t n) /* 4 bytes of every 400 */
{
    struct pair p = equal(n);
    overwrite_some(&p.new_, n / 400, 4);
    return p;
}
static struct pair pages(size_t n) /* 4 KiB of every 256 KiB */
{
    struct pair p = equal(n);
    overwrite_some(&p.new_, n / (256 << 10) + 1, 4096);
    return p;
}
static struct pair floats(size_t n) /* the low byte of every float */
{
    struct bytes old = content_new(CONTENT_FLOATS, n);
    struct pair p = {old, bytes_copy(old.p, old.n)};
    for (size_t i = 0; i < n; i += 4)
        p.new_.p[i] ^= (uint8_t)(1 + random_below(255));
    return p;
}
static struct pair one_insertion(size_t n)
{
    struct pair p = equal(n);
    insert_some(&p.new_, 1, 100);
    return p;
}
static struct pair insertions(size_t n)
{
    struct pair p = equal(n);
    insert_some(&p.new_, 20, 50);
    return p;
}
static struct pair shifted(size_t n)
{
    struct pair p = insertions(n);
    p.new_.n = p.old.n;
    return p;
}
static struct pair unrelated(size_t n)
{
    return (struct pair){content_new(CONTENT_RANDOM, n), content_new(CONTENT_RANDOM, n)};
}
static struct pair unrelated_text(size_t n)
{
    return (struct pair){content_new(CONTENT_TEXT, n), content_new(CONTENT_TEXT, n - 1000)};
}
static struct pair zeros(size_t n)
{
    struct pair p = {content_new(CONTENT_ZEROS, n), content_new(CONTENT_ZEROS, n)};
    insert_some(&p.new_, 20, 50);
    return p;
}
static struct pair periodic(size_t n)
{
    struct bytes old = content_new(CONTENT_PERIODIC, n);
    struct pair p = {old, bytes_copy(old.p, old.n)};
    insert_some(&p.new_, 20, 50);
    return p;
}
static struct pair shuffled(size_t n) /* blocks of 64 bytes in another order */
{
    struct bytes old = content_new(CONTENT_RANDOM, n);
    struct pair p = {old, bytes_copy(old.p, old.n)};
    for (size_t i = n / 64; i-- > 1;) {
        uint8_t block[64], *a = p.new_.p + i * 64, *b = p.new_.p + random_below(i + 1) * 64;
        memcpy(block, a, 64);
        memcpy(a, b, 64);
        memcpy(b, block, 64);
    }
    return p;
}

static const struct {
    const char *name;
    struct pair (*make)(size_t n);
} cases[] = {
    {"equal", equal},
    {"one change of 100", one_change},
    {"4 of each 4096", sparse},
    {"4 of each 400", one_percent},
    {"4 KiB of each 256", pages},
    {"low byte of floats", floats},
    {"one insertion", one_insertion},
    {"20 insertions", insertions},
    {"20, same size", shifted},
    {"unrelated random", unrelated},
    {"unrelated text", unrelated_text},
    {"zeros, insertions", zeros},
    {"periodic, insertions", periodic},
    {"shuffled blocks", shuffled},
};

struct figures {
    double compare, diff, encode, apply, copy; /* seconds, best */
    size_t edits, encoded;
};

static void keep_best(double *best, double since)
{
    double seconds = now() - since;
    if (*best == 0 || seconds < *best)
        *best = seconds;
}

/* memcmp stops at the first difference, so it compares equal bytes; volatile keeps the call. */
static volatile int sink;

static void measure(const struct pair *p, struct figures *f)
{
    struct bytes out = bytes_new(p->new_.n + MIB), copy = bytes_copy(p->new_.p, p->new_.n);
    sink += memcmp(p->new_.p, copy.p, copy.n); /* what is timed is in the caches, for both alike */
    double start = now();
    sink += memcmp(p->new_.p, copy.p, copy.n);
    keep_best(&f->compare, start);

    struct qr_edits list = {0};
    sink += memcmp(p->new_.p, p->old.p, copy.n < p->old.n ? copy.n : p->old.n);
    for (size_t i = 0; i < p->old.n; i += 64)
        sink += p->old.p[i] + (i < p->new_.n ? p->new_.p[i] : 0);
    start = now();
    assert_int_equal(qr_diff(p->old.p, p->old.n, p->new_.p, p->new_.n, 64 * MIB, &list), 0);
    keep_best(&f->diff, start);
    f->edits = list.count;

    size_t next = 0, n, used = 0;
    uint64_t old_end = 0;
    start = now();
    while ((n = qr_ops_encode(&list, &next, &old_end, p->old.p, (struct qr_encode_cost){4, 1},
                              out.p + used, out.n - used)) > 0)
        used += n;
    keep_best(&f->encode, start);
    assert_int_equal(next, list.count);
    f->encoded = used;

    start = now();
    struct qr_apply apply = {p->old.p, p->old.n, copy.p, copy.n, 0, 0};
    assert_int_equal(qr_apply_part(&apply, qr_cursor(out.p, used)), 0);
    assert_int_equal(qr_apply_end(&apply), 0);
    keep_best(&f->apply, start);
    assert_memory_equal(copy.p, p->new_.p, copy.n);

    start = now();
    memcpy(copy.p, p->old.p, copy.n < p->old.n ? copy.n : p->old.n);
    keep_best(&f->copy, start);
    qr_edits_finish(&list);
    bytes_free(&out);
    bytes_free(&copy);
}

int main(int argc, char **argv)
{
    int csv = argc > 1 && strcmp(argv[1], "--csv") == 0;
    static const size_t sizes[] = {64 << 10, MIB, 64 * MIB};
    seed_from_environment();
    puts(csv ? "bytes,case,memcmp_gbs,diff_gbs,encode_gbs,apply_gbs,memcpy_gbs,edits,encoded"
             : "      size case                 memcmp   diff      x encode  apply memcpy    edits"
               "  encoded");
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
            struct pair p = cases[c].make(sizes[s]);
            struct figures f = {0};
            for (size_t round = 0; round < 5 + 8 * MIB / sizes[s]; round++)
                measure(&p, &f);
            double gb = (double)p.new_.n / 1e9;
            if (csv)
                printf("%zu,%s,%.3f,%.3f,%.3f,%.3f,%.3f,%zu,%zu\n", sizes[s], cases[c].name,
                       gb / f.compare, gb / f.diff, gb / f.encode, gb / f.apply, gb / f.copy,
                       f.edits, f.encoded);
            else
                printf("%10zu %-20s %6.2f %6.2f %6.2f %6.1f %6.2f %6.2f %8zu %8zu\n", sizes[s],
                       cases[c].name, gb / f.compare, gb / f.diff, f.compare / f.diff,
                       gb / f.encode, gb / f.apply, gb / f.copy, f.edits, f.encoded);
            bytes_free(&p.old);
            bytes_free(&p.new_);
        }
    return 0;
}
