/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A naive machine: one instruction at a time, one element at a time, every operand looked up anew,
 * nothing shared with the real one but the numbers of opcodes. Numbers are kept as they are exact:
 * integers of all types in 128 bits, floats in the type they have.
 */
#include "naive.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

__extension__ typedef __int128 wide;

struct naive *naive_create(const struct qv_program *program)
{
    struct naive *n = calloc(1, sizeof *n);

    n->program = program;
    n->bytes = calloc(program->page_count + 1, sizeof *n->bytes);
    n->sizes = calloc(program->page_count + 1, sizeof *n->sizes);
    for (size_t i = 0; i < program->page_count; i++) {
        n->sizes[i] = qv_page_is_fixed(&program->pages[i]) ? qv_page_bytes(&program->pages[i]) : 0;
        n->bytes[i] = calloc(1, qv_page_bytes(&program->pages[i]) + 1);
        if (program->pages[i].initial_size)
            memcpy(n->bytes[i], program->pages[i].initial, program->pages[i].initial_size);
    }
    n->stack = calloc(program->stack, 8);
    n->calls = calloc(program->depth, sizeof *n->calls);
    n->emit_values = calloc(QV_MAX_EMITS, 8);
    n->emit_names = calloc(QV_MAX_EMITS, 4);
    n->emit_kinds = calloc(QV_MAX_EMITS, 4);
    n->function = (uint32_t)qv_find_function(program, "main");
    n->tick = 1;
    return n;
}

void naive_destroy(struct naive *n)
{
    for (size_t i = 0; i < n->program->page_count; i++)
        free(n->bytes[i]);
    free(n->bytes);
    free(n->sizes);
    free(n->stack);
    free(n->calls);
    free(n->emit_values);
    free(n->emit_names);
    free(n->emit_kinds);
    free(n);
}

/* --- elements --- */

static unsigned bits_of(unsigned type)
{
    static const unsigned bits[] = {8, 8, 16, 16, 32, 32, 64, 64, 32, 64};
    return bits[type];
}
static int is_signed(unsigned type)
{
    return type == QB_I8 || type == QB_I16 || type == QB_I32 || type == QB_I64;
}
static int is_float(unsigned type) { return type == QB_F32 || type == QB_F64; }

struct number {
    wide i;
    float s;
    double d;
    uint64_t raw;
};

static struct number from_raw(unsigned type, uint64_t raw)
{
    struct number x = {0, 0, 0, raw};
    if (bits_of(type) < 64)
        x.raw &= ((uint64_t)1 << bits_of(type)) - 1;
    uint32_t low = (uint32_t)x.raw;
    memcpy(&x.s, &low, 4);
    memcpy(&x.d, &x.raw, 8);
    x.i = (wide)x.raw;
    if (is_signed(type) && x.raw >> (bits_of(type) - 1) & 1)
        x.i -= (wide)1 << bits_of(type);
    return x;
}
static struct number from_integer(unsigned type, wide i) { return from_raw(type, (uint64_t)i); }
static struct number from_single(float s)
{
    uint32_t raw = 0x7fc00000;
    if (!isnan(s))
        memcpy(&raw, &s, 4);
    return from_raw(QB_F32, raw);
}
static struct number from_double(double d)
{
    uint64_t raw = UINT64_C(0x7ff8000000000000);
    if (!isnan(d))
        memcpy(&raw, &d, 8);
    return from_raw(QB_F64, raw);
}
/* A register as an element. */
static struct number from_register(unsigned type, uint64_t value)
{
    return type == QB_F32 ? from_single((float)from_raw(QB_F64, value).d) : from_raw(type, value);
}
static uint64_t to_register(unsigned type, struct number x)
{
    if (type == QB_F32)
        return from_double((double)x.s).raw;
    return type == QB_F64 ? x.raw : (uint64_t)x.i;
}

static double saturate(double d, double least, double most)
{
    return isnan(d) ? 0 : d < least ? least : d > most ? most : trunc(d);
}

static struct number convert(unsigned to, unsigned from, struct number x)
{
    if (!is_float(from)) {
        if (to == QB_F32)
            return from_single(from == QB_U64 ? (float)(uint64_t)x.i : (float)(int64_t)x.i);
        if (to == QB_F64)
            return from_double(from == QB_U64 ? (double)(uint64_t)x.i : (double)(int64_t)x.i);
        return from_integer(to, x.i);
    }
    double d = from == QB_F32 ? (double)x.s : x.d;
    if (to == QB_F32)
        return from_single((float)d);
    if (to == QB_F64)
        return from_double(d);
    wide least = is_signed(to) ? -((wide)1 << (bits_of(to) - 1)) : 0;
    wide most = ((wide)1 << (bits_of(to) - is_signed(to))) - 1;
    if (d >= ldexp(1, (int)bits_of(to) - is_signed(to)))
        return from_integer(to, most);
    return from_integer(to, (wide)saturate(d, (double)least, INFINITY));
}

/* --- arithmetic of one type --- */

static int below(unsigned type, struct number x, struct number y)
{
    return type == QB_F32 ? x.s < y.s : type == QB_F64 ? x.d < y.d : x.i < y.i;
}
static int same(unsigned type, struct number x, struct number y)
{
    return type == QB_F32 ? x.s == y.s : type == QB_F64 ? x.d == y.d : x.i == y.i;
}
static int is_nan(unsigned type, struct number x)
{
    return type == QB_F32 ? isnan(x.s) : type == QB_F64 ? isnan(x.d) : 0;
}
static int is_minus(unsigned type, struct number x)
{
    return type == QB_F32 ? signbit(x.s) != 0 : type == QB_F64 ? signbit(x.d) != 0 : x.i < 0;
}

static struct number extreme(unsigned type, struct number x, struct number y, int greatest)
{
    if (is_nan(type, x) || is_nan(type, y))
        return type == QB_F32 ? from_single(NAN) : from_double(NAN);
    if (same(type, x, y))
        return is_minus(type, x) != greatest ? x : y;
    return below(type, x, y) != greatest ? x : y;
}

static struct number integers(unsigned op, unsigned type, struct number x, struct number y)
{
    wide r = 0, distance = (wide)(y.raw % bits_of(type));

    switch (op) {
    case QV_VADD:
        r = x.i + y.i;
        break;
    case QV_VSUB:
        r = x.i - y.i;
        break;
    case QV_VMUL:
        return from_raw(type, x.raw * y.raw);
    case QV_VDIV:
        r = y.i == 0 ? -1 : x.i / y.i;
        break;
    case QV_VREM:
        r = y.i == 0 ? x.i : x.i % y.i;
        break;
    case QV_VAND:
        return from_raw(type, x.raw & y.raw);
    case QV_VOR:
        return from_raw(type, x.raw | y.raw);
    case QV_VXOR:
        return from_raw(type, x.raw ^ y.raw);
    case QV_VNOT:
        return from_raw(type, ~x.raw);
    case QV_VSHL:
        return from_raw(type, x.raw << (int)distance);
    case QV_VSHR:
        r = x.i >> (int)distance;
        break;
    case QV_VNEG:
        r = -x.i;
        break;
    default: /* VABS */
        r = x.i < 0 ? -x.i : x.i;
    }
    return from_integer(type, r);
}

static double floats(unsigned op, double x, double y)
{
    switch (op) {
    case QV_VADD:
        return x + y;
    case QV_VSUB:
        return x - y;
    case QV_VMUL:
        return x * y;
    case QV_VDIV:
        return x / y;
    case QV_VNEG:
        return -x;
    case QV_VABS:
        return fabs(x);
    case QV_VSQRT:
        return sqrt(x);
    case QV_VFLOOR:
        return floor(x);
    case QV_VCEIL:
        return ceil(x);
    case QV_VTRUNC:
        return trunc(x);
    default:
        return nearbyint(x);
    }
}

/* An operation of two singles, done in doubles and rounded, is correctly rounded. */
static struct number calculate(unsigned op, unsigned type, struct number x, struct number y)
{
    if (op == QV_VMIN || op == QV_VMAX)
        return extreme(type, x, y, op == QV_VMAX);
    if (type == QB_F32)
        return from_single((float)floats(op, (double)x.s, (double)y.s));
    if (type == QB_F64)
        return from_double(floats(op, x.d, y.d));
    return integers(op, type, x, y);
}

/* --- vector instructions --- */

struct range {
    int page; /* -1: a register */
    uint64_t start, count, value;
    unsigned type;
};

static struct number get(struct naive *n, const struct range *r, uint64_t i)
{
    uint64_t raw = 0, size = bits_of(r->type) / 8;
    if (r->page < 0)
        return from_register(r->type, r->value);
    memcpy(&raw, n->bytes[r->page] + (r->start + i) * size, size);
    return from_raw(r->type, raw);
}
static void put(struct naive *n, const struct range *r, uint64_t i, struct number x)
{
    uint64_t size = bits_of(r->type) / 8;
    memcpy(n->bytes[r->page] + (r->start + i) * size, &x.raw, size);
}

static unsigned fold_of(unsigned op)
{
    static const unsigned folds[] = {QV_VADD, QV_VMIN, QV_VMAX, QV_VAND, QV_VOR, QV_VXOR};
    if (op >= QV_WINDOW_ADD)
        return folds[op - QV_WINDOW_ADD];
    return folds[op >= QV_SCAN_ADD ? op - QV_SCAN_ADD : op - QV_REDUCE_ADD];
}

static struct number identity(unsigned fold, unsigned type)
{
    int most = fold == QV_VMIN, least = fold == QV_VMAX;
    if (fold == QV_VAND)
        return from_raw(type, UINT64_MAX);
    if (!most && !least)
        return from_raw(type, 0);
    if (type == QB_F32)
        return from_single(most ? INFINITY : -INFINITY);
    if (type == QB_F64)
        return from_double(most ? (double)INFINITY : -(double)INFINITY);
    if (!is_signed(type))
        return from_raw(type, most ? UINT64_MAX : 0);
    return from_integer(type, most ? ((wide)1 << (bits_of(type) - 1)) - 1
                                   : -((wide)1 << (bits_of(type) - 1)));
}

/* The tree of a reduction, as documented: chunks of 4096, lanes of 32. */
static struct number reduce(struct naive *n, const struct range *r, uint64_t count, unsigned fold)
{
    struct number sum = identity(fold, r->type);

    for (uint64_t from = 0; from < count; from += 4096) {
        struct number lane[32];
        for (int j = 0; j < 32; j++)
            lane[j] = identity(fold, r->type);
        for (uint64_t i = from; i < count && i < from + 4096; i++)
            lane[i % 32] = calculate(fold, r->type, lane[i % 32], get(n, r, i));
        for (int half = 16; half > 0; half /= 2)
            for (int j = 0; j < half; j++)
                lane[j] = calculate(fold, r->type, lane[j], lane[j + half]);
        sum = from == 0 ? lane[0] : calculate(fold, r->type, sum, lane[0]);
    }
    return sum;
}

static struct number one(struct naive *n, unsigned op, struct range *o, uint64_t i)
{
    struct number x = get(n, &o[1], i), y;

    switch (op) {
    case QV_VSELECT:
        return x.raw ? get(n, &o[2], i) : get(n, &o[3], i);
    case QV_VMOV:
        return x;
    case QV_VCVT:
        return convert(o[0].type, o[1].type, x);
    case QV_VRAMP:
        if (is_float(o[0].type)) {
            double d = from_raw(QB_F64, o[1].value).d;
            double product = from_raw(QB_F64, o[2].value).d * (double)i;
            d = d + product;
            return o[0].type == QB_F32 ? from_single((float)d) : from_double(d);
        }
        return from_raw(o[0].type, o[1].value + o[2].value * i);
    case QV_VEQ:
    case QV_VNE:
        y = get(n, &o[2], i);
        return from_raw(QB_U8, same(o[1].type, x, y) == (op == QV_VEQ));
    case QV_VLT:
        return from_raw(QB_U8, (uint64_t)below(o[1].type, x, get(n, &o[2], i)));
    case QV_VLE:
        y = get(n, &o[2], i);
        return from_raw(QB_U8, below(o[1].type, x, y) || same(o[1].type, x, y));
    default:
        y = o[2].type < QB_TYPES ? get(n, &o[2], i) : x;
        return calculate(op, o[0].type, x, y);
    }
}

static int indexed(struct naive *n, unsigned op, struct range *o, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t to = get(n, &o[op == QV_TALLY ? 1 : 2], i).raw;
        if (to >= o[op == QV_GATHER ? 1 : 0].count)
            return NAIVE_BOUNDS;
        if (op == QV_GATHER)
            put(n, &o[0], i, get(n, &o[1], to));
        else if (op == QV_SCATTER)
            put(n, &o[0], to, get(n, &o[1], i));
        else
            put(n, &o[0], to, from_raw(o[0].type, get(n, &o[0], to).raw + 1));
    }
    return 0;
}

static int perform(struct naive *n, unsigned op, struct range *o, uint64_t count, uint64_t *result)
{
    if (op >= QV_GATHER)
        return indexed(n, op, o, count);
    if (op >= QV_REDUCE_ADD && op <= QV_REDUCE_XOR) {
        *result = to_register(o[1].type, reduce(n, &o[1], count, fold_of(op)));
        return 0;
    }
    struct number carry = identity(fold_of(QV_REDUCE_ADD), o[0].type);
    for (uint64_t i = 0; i < count; i++) {
        struct number x;
        if (op >= QV_SCAN_ADD && op <= QV_SCAN_MAX) {
            unsigned fold = fold_of(op);
            carry =
                calculate(fold, o[0].type, i ? carry : identity(fold, o[0].type), get(n, &o[1], i));
            x = carry;
        } else if (op >= QV_WINDOW_ADD && op <= QV_WINDOW_MAX) {
            x = get(n, &o[1], i);
            for (uint64_t k = 1; k < o[2].value; k++)
                x = calculate(fold_of(op), o[0].type, x, get(n, &o[1], i + k));
        } else {
            x = one(n, op, o, i);
        }
        put(n, &o[0], i, x);
    }
    return 0;
}

static int apart(const struct range *a, uint64_t a_count, const struct range *b, uint64_t b_count)
{
    uint64_t a_size = bits_of(a->type) / 8, b_size = bits_of(b->type) / 8;
    return a->page != b->page || !a_count || !b_count ||
           (a->start + a_count) * a_size <= b->start * b_size ||
           (b->start + b_count) * b_size <= a->start * a_size;
}

static int vector(struct naive *n, uint64_t *r, uint64_t w, uint64_t pages)
{
    unsigned op = w & 0xff, type = w >> 8 & 15, type2 = w >> 12 & 15,
             count_register = w >> 16 & 255;
    const char *letters = qv_ops[op].operands;
    int is_window = op >= QV_WINDOW_ADD && op <= QV_WINDOW_MAX, counting = -1;
    struct range o[4];
    uint64_t count, extra = 0;

    for (int i = 0; i < 4; i++)
        o[i] = (struct range){-1, 0, UINT64_MAX, 0, 99};
    for (int i = 0; letters[i]; i++) {
        unsigned page = pages >> 16 * i & 0xffff, reg = w >> (24 + 8 * i) & 0xff;
        o[i].type = strchr("MB", letters[i]) ? QB_U8 : strchr("WI", letters[i]) ? type2 : type;
        if (page == 0xffff) {
            o[i].value = letters[i] == 'R' ? 0 : r[reg];
            continue;
        }
        o[i].page = (int)page;
        o[i].start = reg == 255 ? 0 : r[reg];
        if (o[i].start > n->sizes[page] / (bits_of(o[i].type) / 8))
            return NAIVE_BOUNDS;
        o[i].count = n->sizes[page] / (bits_of(o[i].type) / 8) - o[i].start;
        if (counting < 0 && strchr("DMVI", letters[i]))
            counting = i;
    }
    count = count_register == 255 ? o[counting].count : r[count_register];
    if (is_window && (o[2].value < 1 || o[2].value > (uint64_t)1 << 48))
        return NAIVE_VECTOR;
    if (count > (uint64_t)1 << 48)
        return NAIVE_VECTOR;
    wide cost = ((wide)1 + count / 16) * (is_window ? o[2].value : 1);
    if (cost > (wide)n->fuel)
        return NAIVE_FUEL;
    extra = is_window && count ? o[2].value - 1 : 0;
    for (int i = 0; letters[i]; i++) {
        int based = strchr("GH", letters[i]) != NULL;
        if (o[i].page >= 0 && !based && count + (letters[i] == 'V' ? extra : 0) > o[i].count)
            return NAIVE_BOUNDS;
        if (i == 0 || o[i].page < 0 || o[0].page < 0)
            continue;
        uint64_t mine = based ? o[i].count : count + (letters[i] == 'V' ? extra : 0);
        int is_same = o[i].start == o[0].start && bits_of(o[i].type) == bits_of(o[0].type);
        if (!apart(&o[0], letters[0] == 'H' ? o[0].count : count, &o[i], mine) &&
            (!is_same || based || letters[0] == 'H' || (is_window && o[2].value > 1)))
            return NAIVE_VECTOR;
    }
    n->fuel -= (uint64_t)cost;
    return perform(n, op, o, count, letters[0] == 'R' ? &r[w >> 24 & 0xff] : &extra);
}

/* --- scalar instructions --- */

static uint64_t bits(double d) { return from_double(d).raw; }
static double real(uint64_t raw) { return from_raw(QB_F64, raw).d; }

/* clang-format off */
/* What only computes: 1, and *a is the result. */
static int compute(unsigned op, uint64_t *a, uint64_t b, uint64_t c, int64_t imm)
{
    int64_t sb = (int64_t)b, sc = (int64_t)c;
    struct number x = from_raw(QB_I64, b), y = from_raw(QB_I64, c);
    struct number ux = from_raw(QB_U64, b), uy = from_raw(QB_U64, c);
    uint64_t i = (uint64_t)imm, count = 0;

    switch (op) {
    case QV_MOV: *a = b; return 1;
    case QV_LI: *a = i; return 1;
    case QV_SEL: *a = *a ? b : c; return 1;
    case QV_ADD: *a = integers(QV_VADD, QB_I64, x, y).raw; return 1;
    case QV_SUB: *a = integers(QV_VSUB, QB_I64, x, y).raw; return 1;
    case QV_MUL: *a = integers(QV_VMUL, QB_I64, x, y).raw; return 1;
    case QV_MULHU: { /* by halves: b = b1 * 2^32 + b0 */
        wide low = (wide)(b & 0xffffffff) * (wide)c, high = (wide)(b >> 32) * (wide)c;
        *a = (uint64_t)((high + (low >> 32)) >> 32);
        return 1;
    }
    case QV_DIV: *a = integers(QV_VDIV, QB_I64, x, y).raw; return 1;
    case QV_DIVU: *a = integers(QV_VDIV, QB_U64, ux, uy).raw; return 1;
    case QV_REM: *a = integers(QV_VREM, QB_I64, x, y).raw; return 1;
    case QV_REMU: *a = integers(QV_VREM, QB_U64, ux, uy).raw; return 1;
    case QV_AND: *a = b & c; return 1;
    case QV_OR: *a = b | c; return 1;
    case QV_XOR: *a = b ^ c; return 1;
    case QV_SHL: *a = integers(QV_VSHL, QB_U64, ux, uy).raw; return 1;
    case QV_SHR: *a = integers(QV_VSHR, QB_U64, ux, uy).raw; return 1;
    case QV_SAR: *a = integers(QV_VSHR, QB_I64, x, y).raw; return 1;
    case QV_ROTL:
        for (*a = b; count < c % 64; count++)
            *a = *a << 1 | *a >> 63;
        return 1;
    case QV_MIN: *a = sb < sc ? b : c; return 1;
    case QV_MAX: *a = sb < sc ? c : b; return 1;
    case QV_MINU: *a = b < c ? b : c; return 1;
    case QV_MAXU: *a = b < c ? c : b; return 1;
    case QV_NEG: *a = ~b + 1; return 1;
    case QV_NOT: *a = ~b; return 1;
    case QV_CLZ:
        while (count < 64 && !(b >> (63 - count) & 1))
            count++;
        *a = count;
        return 1;
    case QV_CTZ:
        while (count < 64 && !(b >> count & 1))
            count++;
        *a = count;
        return 1;
    case QV_POPCNT:
        for (int k = 0; k < 64; k++)
            count += b >> k & 1;
        *a = count;
        return 1;
    case QV_ADDI: *a = b + i; return 1;
    case QV_MULI: *a = b * i; return 1;
    case QV_ANDI: *a = b & i; return 1;
    case QV_ORI: *a = b | i; return 1;
    case QV_XORI: *a = b ^ i; return 1;
    case QV_SHLI: *a = b << (i % 64); return 1;
    case QV_SHRI: *a = b >> (i % 64); return 1;
    case QV_SARI: *a = (uint64_t)(sb >> (i % 64)); return 1;
    case QV_EQ: case QV_NE: *a = (b == c) == (op == QV_EQ); return 1;
    case QV_LT: *a = sb < sc; return 1;
    case QV_LE: *a = sb <= sc; return 1;
    case QV_LTU: *a = b < c; return 1;
    case QV_LEU: *a = b <= c; return 1;
    default: return 0;
    }
}

static int compute_float(unsigned op, uint64_t *a, uint64_t b, uint64_t c)
{
    struct number x = from_raw(QB_F64, b), y = from_raw(QB_F64, c);

    switch (op) {
    case QV_FADD: *a = bits(x.d + y.d); return 1;
    case QV_FSUB: *a = bits(x.d - y.d); return 1;
    case QV_FMUL: *a = bits(x.d * y.d); return 1;
    case QV_FDIV: *a = bits(x.d / y.d); return 1;
    case QV_FMIN: *a = extreme(QB_F64, x, y, 0).raw; return 1;
    case QV_FMAX: *a = extreme(QB_F64, x, y, 1).raw; return 1;
    case QV_FNEG: *a = bits(-x.d); return 1;
    case QV_FABS: *a = bits(fabs(x.d)); return 1;
    case QV_FSQRT: *a = bits(sqrt(x.d)); return 1;
    case QV_FFLOOR: *a = bits(floor(x.d)); return 1;
    case QV_FCEIL: *a = bits(ceil(x.d)); return 1;
    case QV_FTRUNC: *a = bits(trunc(x.d)); return 1;
    case QV_FROUND: *a = bits(nearbyint(x.d)); return 1;
    case QV_FSINGLE: *a = bits((double)(float)x.d); return 1;
    case QV_FEQ: *a = x.d == y.d; return 1;
    case QV_FLT: *a = x.d < y.d; return 1;
    case QV_FLE: *a = x.d <= y.d; return 1;
    case QV_ITOF: *a = bits((double)(int64_t)b); return 1;
    case QV_UTOF: *a = bits((double)b); return 1;
    case QV_FTOI: *a = convert(QB_I64, QB_F64, x).raw; return 1;
    case QV_FTOU: *a = convert(QB_U64, QB_F64, x).raw; return 1;
    default: return 0;
    }
}

/* A jump: 1 if it is taken, 0 if not, -1 if the instruction is none. */
static int taken(unsigned op, uint64_t a, uint64_t b, int64_t half)
{
    int64_t sa = (int64_t)a, sb = (int64_t)b;

    switch (op) {
    case QV_JMP: return 1;
    case QV_JEQ: return a == b;
    case QV_JNE: return a != b;
    case QV_JLT: return sa < sb;
    case QV_JLE: return sa <= sb;
    case QV_JLTU: return a < b;
    case QV_JLEU: return a <= b;
    case QV_JEQI: return sa == half;
    case QV_JNEI: return sa != half;
    case QV_JLTI: return sa < half;
    case QV_JLEI: return sa <= half;
    case QV_JGTI: return sa > half;
    case QV_JGEI: return sa >= half;
    case QV_JFLT: return real(a) < real(b);
    case QV_JFLE: return real(a) <= real(b);
    default: return -1;
    }
}

/* clang-format on */

/* Loads and stores: 0, or that the element is not there. */
static int access_page(struct naive *n, unsigned op, uint64_t *a, uint64_t b, uint64_t w)
{
    static const unsigned types[] = {QB_U8,  QB_I8, QB_U16, QB_I16, QB_U32, QB_I32, QB_U64,
                                     QB_F32, QB_U8, QB_U16, QB_U32, QB_U64, QB_F32};
    struct range r = {(int)(w >> 32 & 0xffff), 0, 0, 0, types[op - QV_LDU8]};
    uint64_t index = b + (uint64_t)(int64_t)(int16_t)(w >> 48);

    if (index >= n->sizes[r.page] / (bits_of(r.type) / 8))
        return NAIVE_BOUNDS;
    if (op <= QV_LDF32)
        *a = to_register(r.type, get(n, &r, index));
    else
        put(n, &r, index, from_register(r.type, *a));
    return 0;
}

static int call(struct naive *n, unsigned a, uint32_t to)
{
    const struct qv_function *f = &n->program->functions[to];

    if (n->fuel < f->word_count)
        return NAIVE_FUEL;
    if (n->depth == n->program->depth || n->base + a + f->registers > n->program->stack)
        return NAIVE_STACK;
    n->fuel -= f->word_count;
    n->calls[n->depth++] = (struct naive_call){n->function, n->word + 1, n->base};
    n->base += a;
    n->function = to;
    n->word = 0;
    memset(n->stack + n->base + f->arguments, 0, (f->registers - f->arguments) * 8u);
    return 0;
}

static int emit(struct naive *n, unsigned op, uint64_t a, int64_t imm)
{
    if (n->emit_count == QV_MAX_EMITS)
        return NAIVE_EMITS;
    n->emit_names[n->emit_count] = (uint32_t)imm;
    n->emit_kinds[n->emit_count] = op - QV_EMIT;
    n->emit_values[n->emit_count++] = a;
    return 0;
}

static uint64_t next_number(struct naive *n)
{
    uint64_t z = n->random += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* One instruction: 0 to go on, or why not. A tick or halt is 1 more than its enum. */
static int step(struct naive *n)
{
    const struct qv_function *f = &n->program->functions[n->function];
    uint64_t w = f->words[n->word], *r = n->stack + n->base;
    unsigned op = w & 0xff;
    uint64_t *a = &r[w >> 8 & 255], b = 0, c = 0;
    int64_t imm = (int32_t)(w >> 32);
    int rc = 0;

    if (qv_ops[op].is_vector) {
        rc = vector(n, r, w, f->words[n->word + 1]);
        n->word += rc == 0 ? 2 : 0;
        return rc;
    }
    b = (w >> 16 & 255) < f->registers ? r[w >> 16 & 255] : 0;
    c = (w >> 24 & 255) < f->registers ? r[w >> 24 & 255] : 0;
    int jump = taken(op, *a, b, (int16_t)(w >> 16));
    if (jump == 1) {
        if (imm < 0 && n->fuel < (uint64_t)-imm)
            return NAIVE_FUEL;
        n->fuel -= imm < 0 ? (uint64_t)-imm : 0;
        n->word = (uint32_t)((int64_t)n->word + 1 + imm);
        return 0;
    }
    if (op >= QV_LDU8 && op <= QV_STF32)
        rc = access_page(n, op, a, b, w);
    else if (op == QV_CALL)
        return call(n, w >> 8 & 255, (uint32_t)imm);
    else if (op == QV_TRAP)
        rc = NAIVE_PROGRAM;
    else if (op >= QV_EMIT && op <= QV_EMITF)
        rc = emit(n, op, *a, imm);
    else if (op == QV_LC)
        *a = f->words[++n->word];
    else if (op == QV_LEN)
        *a = n->sizes[imm] /
             (bits_of(f->is_closed ? f->formals[imm].type : n->program->pages[imm].type) / 8);
    else if (op == QV_RAND)
        *a = next_number(n);
    else if (op == QV_TICK)
        *a = n->tick;
    else if (jump < 0 && op != QV_NOP && op != QV_COMMIT && op != QV_HALT && op != QV_RET &&
             !compute(op, a, b, c, imm) && !compute_float(op, a, b, c))
        abort();
    if (op == QV_HALT || (op == QV_RET && n->depth == 0))
        return -2;
    n->word += rc == 0;
    if (op == QV_RET) {
        n->depth--;
        n->function = n->calls[n->depth].function;
        n->word = n->calls[n->depth].word;
        n->base = n->calls[n->depth].base;
        return 0;
    }
    return op == QV_COMMIT ? -1 : rc;
}

enum naive_stop naive_tick(struct naive *n, uint64_t fuel)
{
    int rc = 0;

    n->fuel = fuel;
    n->emit_count = 0;
    while (rc == 0)
        rc = step(n);
    if (rc == -1 || rc == -2)
        n->tick++;
    return rc == -1 ? NAIVE_TICK : rc == -2 ? NAIVE_HALT : (enum naive_stop)rc;
}
