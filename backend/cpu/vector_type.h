/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vector kernels of one type, to be included once for each: T is the type, U the unsigned
 * integer of its width (of a float S the signed one), SUFFIX its name, SLOT its enum qb_type,
 * FLOATING 0 or 1; LEAST and GREATEST are its bounds. Loops are as plain as can be, for the
 * compiler to vectorise. What they mean stands in backend/vector.h.
 */
#define FN(name) QB_JOIN(name, SUFFIX)

/* d[i] = expression of x = a[i] and y = b[i] */
#define ELEMENTWISE(name, R, loads, expression)                                                    \
    static void FN(name)(void *d_, const void *a_, const void *b_, const void *c_, size_t n)       \
    {                                                                                              \
        R *d = (R *)d_;                                                                            \
        const T *a = (const T *)a_, *b = (const T *)b_;                                            \
        (void)b, (void)c_;                                                                         \
        QB_INDEPENDENT                                                                             \
        for (size_t i = 0; i < n; i++) {                                                           \
            loads;                                                                                 \
            d[i] = (R)(expression);                                                                \
        }                                                                                          \
    }
#define ZIP(name, expression)     ELEMENTWISE(name, T, T x = a[i]; T y = b[i], expression)
#define MAP(name, expression)     ELEMENTWISE(name, T, T x = a[i], expression)
#define COMPARE(name, expression) ELEMENTWISE(name, uint8_t, T x = a[i]; T y = b[i], expression)

#if FLOATING
static inline U FN(bits)(T x)
{
    U bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline T FN(from_bits)(U bits)
{
    T x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline T FN(canonical)(T x) { return x == x ? x : (T)__builtin_nan(""); }
/* Both orders of the comparison give the same bits, unless the numbers are zeros of different sign,
 * or one is NaN. */
static inline T FN(least)(T x, T y)
{
    T r = FN(from_bits)(FN(bits)(x < y ? x : y) | FN(bits)(y < x ? y : x));
    return __builtin_isunordered(x, y) ? (T)__builtin_nan("") : r;
}
static inline T FN(most)(T x, T y)
{
    T r = FN(from_bits)(FN(bits)(x > y ? x : y) & FN(bits)(y > x ? y : x));
    return __builtin_isunordered(x, y) ? (T)__builtin_nan("") : r;
}
static inline T FN(plus)(T x, T y) { return FN(canonical)(x + y); }

ZIP(sub, FN(canonical)(x - y))
ZIP(mul, FN(canonical)(x *y))
ZIP(div, FN(canonical)(x / y))
MAP(neg, FN(canonical)(-x))
MAP(absolute, FN(canonical)(FN(from_bits)(FN(bits)(x) & (U) ~((U)1 << (sizeof(U) * 8 - 1)))))
MAP(root, FN(canonical)((T)QB_MATH(sqrt)(x)))
MAP(down, FN(canonical)((T)QB_MATH(floor)(x)))
MAP(up, FN(canonical)((T)QB_MATH(ceil)(x)))
MAP(chop, FN(canonical)((T)QB_MATH(trunc)(x)))
MAP(nearest, FN(canonical)((T)QB_MATH(rint)(x)))

#else
static inline T FN(least)(T x, T y) { return x < y ? x : y; }
static inline T FN(most)(T x, T y) { return x > y ? x : y; }
static inline T FN(plus)(T x, T y) { return (T)((U)x + (U)y); }

static inline T FN(quotient)(T x, T y)
{
    if (y == 0)
        return (T) ~(T)0;
    if (LEAST != 0 && y == (T) ~(T)0) /* -1: MIN / -1 overflows */
        return (T)(0 - (U)x);
    return (T)(x / y);
}
static inline T FN(remainder)(T x, T y)
{
    if (y == 0)
        return x;
    if (LEAST != 0 && y == (T) ~(T)0)
        return 0;
    return (T)(x % y);
}
ZIP(sub, (U)x - (U)y)
ZIP(mul, (U)(1u * (U)x * (U)y)) /* 1u: products of 16 bits must not be of type int */
ZIP(div, FN(quotient)(x, y))
ZIP(rem, FN(remainder)(x, y))
ZIP(both, x &y)
ZIP(either, x | y)
ZIP(odd, x ^ y)
MAP(invert, ~x)
ZIP(left, (U)(1u * (U)x << ((U)y % (sizeof(T) * 8))))
ZIP(right, x >> ((U)y % (sizeof(T) * 8)))
MAP(neg, 0 - (U)x)
MAP(absolute, LEAST != 0 && x < 1 ? (T)(0 - (U)x) : x)
#endif

ZIP(add, FN(plus)(x, y))
ZIP(minimum, FN(least)(x, y))
ZIP(maximum, FN(most)(x, y))
COMPARE(equal, x == y)
COMPARE(unequal, x != y)
COMPARE(less, x < y)
COMPARE(less_equal, x <= y)

static void FN(select)(void *d_, const void *a_, const void *b_, const void *c_, size_t n)
{
    U *d = (U *)d_;
    const uint8_t *a = (const uint8_t *)a_;
    const U *b = (const U *)b_, *c = (const U *)c_;
    QB_INDEPENDENT
    for (size_t i = 0; i < n; i++) {
        U x = b[i], y = c[i];
        d[i] = a[i] != 0 ? x : y;
    }
}

/* A fold of up to one chunk for which any order gives the same. */
#define REDUCE(name, identity, fold)                                                               \
    static void FN(name)(void *result, const void *a_, size_t n)                                   \
    {                                                                                              \
        const T *a = (const T *)a_;                                                                \
        T sum = identity;                                                                          \
        for (size_t i = 0; i < n; i++)                                                             \
            sum = fold(sum, a[i]);                                                                 \
        memcpy(result, &sum, sizeof sum);                                                          \
    }
#define SCAN(name, fold)                                                                           \
    static void FN(name)(void *d_, const void *a_, void *carry, size_t n)                          \
    {                                                                                              \
        T *d = (T *)d_, sum;                                                                       \
        const T *a = (const T *)a_;                                                                \
        memcpy(&sum, carry, sizeof sum);                                                           \
        for (size_t i = 0; i < n; i++)                                                             \
            d[i] = sum = fold(sum, a[i]);                                                          \
        memcpy(carry, &sum, sizeof sum);                                                           \
    }
/* The result's block stays in the first-level cache while the window walks over it. */
#define WINDOW(name, fold)                                                                         \
    static void FN(name)(void *d_, const void *a_, size_t width, size_t n)                         \
    {                                                                                              \
        T *d = (T *)d_;                                                                            \
        const T *a = (const T *)a_;                                                                \
        for (size_t from = 0; from < n; from += QB_WINDOW_BLOCK) {                                 \
            size_t to = n - from < QB_WINDOW_BLOCK ? n : from + QB_WINDOW_BLOCK;                   \
            memcpy(d + from, a + from, (to - from) * sizeof *d);                                   \
            for (size_t k = 1; k < width; k++) {                                                   \
                QB_INDEPENDENT                                                                     \
                for (size_t i = from; i < to; i++)                                                 \
                    d[i] = fold(d[i], a[i + k]);                                                   \
            }                                                                                      \
        }                                                                                          \
    }
SCAN(scan_add, FN(plus))
SCAN(scan_min, FN(least))
SCAN(scan_max, FN(most))
WINDOW(window_add, FN(plus))
WINDOW(window_min, FN(least))
WINDOW(window_max, FN(most))

#if FLOATING
/* The lanes of backend/vector.h, as many vectors as they need. A NaN stays one, whichever. */
typedef T FN(vector) __attribute__((vector_size(QB_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
static void FN(reduce_add)(void *result, const void *a_, size_t n)
{
    enum { EACH = QB_VECTOR_BYTES / sizeof(T), COUNT = QB_REDUCE_LANES / EACH };
    const T *a = (const T *)a_;
    FN(vector) sums[COUNT] = {{0}};
    T lane[QB_REDUCE_LANES];
    size_t i = 0;

    for (; n - i >= QB_REDUCE_LANES; i += QB_REDUCE_LANES)
        for (int k = 0; k < COUNT; k++)
            sums[k] += *(const FN(vector) *)(a + i + k * EACH);
    memcpy(lane, sums, sizeof lane);
    for (size_t j = 0; i < n; i++, j++)
        lane[j] += a[i];
    for (size_t half = QB_REDUCE_LANES / 2; half > 0; half /= 2)
        for (size_t j = 0; j < half; j++)
            lane[j] += lane[j + half];
    lane[0] = FN(canonical)(lane[0]);
    memcpy(result, lane, sizeof lane[0]);
}
/* Bits as a signed integer that is ordered as the numbers are, -0 below +0; its own inverse. */
static inline S FN(order)(S bits) { return bits ^ (S)((U)(bits >> (sizeof(S) * 8 - 1)) >> 1); }
/* The extreme of the numbers in that order, and whether any is NaN. */
#define REDUCE_ORDER(name, identity, better)                                                       \
    static void FN(name)(void *result, const void *a_, size_t n)                                   \
    {                                                                                              \
        const T *a = (const T *)a_;                                                                \
        T first = identity;                                                                        \
        S best = FN(order)((S)FN(bits)(first)), nan = 0;                                           \
        for (size_t i = 0; i < n; i++) {                                                           \
            S key = FN(order)((S)FN(bits)(a[i]));                                                  \
            best = key better best ? key : best;                                                   \
            nan |= a[i] != a[i];                                                                   \
        }                                                                                          \
        first = nan ? (T)__builtin_nan("") : FN(from_bits)((U)FN(order)(best));                    \
        memcpy(result, &first, sizeof first);                                                      \
    }
REDUCE_ORDER(reduce_min, GREATEST, <)
REDUCE_ORDER(reduce_max, LEAST, >)
#undef REDUCE_ORDER
#undef S
#else
REDUCE(reduce_add, 0, FN(plus))
REDUCE(reduce_min, GREATEST, FN(least))
REDUCE(reduce_max, LEAST, FN(most))
static inline T FN(conjunction)(T x, T y) { return x & y; }
static inline T FN(disjunction)(T x, T y) { return x | y; }
static inline T FN(parity)(T x, T y) { return x ^ y; }
REDUCE(reduce_and, (T) ~(T)0, FN(conjunction))
REDUCE(reduce_or, 0, FN(disjunction))
REDUCE(reduce_xor, 0, FN(parity))
#endif

/* Starts and steps come as u64 or f64, and so does the sum before it is narrowed. */
static void FN(ramp)(void *d_, const void *start, const void *step, uint64_t first, size_t n)
{
    T *d = (T *)d_;
#if FLOATING
    double from, by;
#else
    uint64_t from, by;
#endif
    memcpy(&from, start, sizeof from);
    memcpy(&by, step, sizeof by);
    QB_INDEPENDENT
    for (size_t i = 0; i < n; i++)
#if FLOATING
        d[i] = FN(canonical)((T)(from + by * (double)(first + i)));
#else
        d[i] = (T)(from + by * (first + i));
#endif
}

static void FN(fill)(struct qb_vectors *table)
{
    qb_map_fn maps[QB_MAPS] = {
        [QB_ADD] = FN(add),
        [QB_SUB] = FN(sub),
        [QB_MUL] = FN(mul),
        [QB_DIV] = FN(div),
        [QB_MIN] = FN(minimum),
        [QB_MAX] = FN(maximum),
        [QB_NEG] = FN(neg),
        [QB_ABS] = FN(absolute),
        [QB_EQ] = FN(equal),
        [QB_NE] = FN(unequal),
        [QB_LT] = FN(less),
        [QB_LE] = FN(less_equal),
        [QB_SELECT] = FN(select),
#if FLOATING
        [QB_SQRT] = FN(root),
        [QB_FLOOR] = FN(down),
        [QB_CEIL] = FN(up),
        [QB_TRUNC] = FN(chop),
        [QB_ROUND] = FN(nearest),
#else
        [QB_REM] = FN(rem),
        [QB_AND] = FN(both),
        [QB_OR] = FN(either),
        [QB_XOR] = FN(odd),
        [QB_NOT] = FN(invert),
        [QB_SHL] = FN(left),
        [QB_SHR] = FN(right),
#endif
    };
    for (int op = 0; op < QB_MAPS; op++)
        table->map[op][SLOT] = maps[op];
    table->reduce[QB_FOLD_ADD][SLOT] = FN(reduce_add);
    table->reduce[QB_FOLD_MIN][SLOT] = FN(reduce_min);
    table->reduce[QB_FOLD_MAX][SLOT] = FN(reduce_max);
#if !FLOATING
    table->reduce[QB_FOLD_AND][SLOT] = FN(reduce_and);
    table->reduce[QB_FOLD_OR][SLOT] = FN(reduce_or);
    table->reduce[QB_FOLD_XOR][SLOT] = FN(reduce_xor);
#endif
    table->scan[QB_FOLD_ADD][SLOT] = FN(scan_add);
    table->scan[QB_FOLD_MIN][SLOT] = FN(scan_min);
    table->scan[QB_FOLD_MAX][SLOT] = FN(scan_max);
    table->window[QB_FOLD_ADD][SLOT] = FN(window_add);
    table->window[QB_FOLD_MIN][SLOT] = FN(window_min);
    table->window[QB_FOLD_MAX][SLOT] = FN(window_max);
    table->ramp[SLOT] = FN(ramp);
}

#undef FN
#undef ELEMENTWISE
#undef ZIP
#undef MAP
#undef COMPARE
#undef REDUCE
#undef SCAN
#undef WINDOW
#undef T
#undef U
#undef SUFFIX
#undef SLOT
#undef FLOATING
#undef LEAST
#undef GREATEST
