/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector instructions: finds the operands in the pages, checks that they fit, and runs the kernels
 * of backend/vector.h over them, block by block and on the threads of the pool. Whatever is done in
 * parallel gives the same bytes as in one thread.
 *
 * Another place to run them (a GPU) would take the place of the functions that end with _part: they
 * get operands that have been checked, and a part of the elements.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "backend/kernels.h"
#include "vm/machine.h"
#include "vm/scalar.h"

enum {
    BROADCAST = 2048,        /* bytes of a register repeated: how much is computed at a time */
    REDUCED_TOGETHER = 1024, /* chunks whose results are kept until they are folded */
};

struct operand {
    uint8_t *at;    /* first element; of a register: the block that repeats it; or NULL */
    uint64_t count; /* elements from there to the page's end */
    unsigned shift; /* log2 of an element's bytes */
    unsigned page;  /* or QV_NO_PAGE */
    uint64_t start; /* of the range in the page, in bytes */
    uint64_t value; /* of a register */
};

/* What a letter of the table says of its operand. */
enum {
    IS_U8 = 1,     /* its elements */
    IS_SECOND = 2, /* they are of the second type */
    IS_BASE = 4,   /* reaches to the page's end; no number of elements is needed */
    MAY_BE_REGISTER = 8,
    COUNTS = 16, /* the first such says how many elements are meant */
    IS_REGISTER = 32,
};
static const uint8_t letter_of[128] = {
    ['D'] = COUNTS,
    ['M'] = COUNTS | IS_U8,
    ['H'] = IS_BASE,
    ['V'] = COUNTS,
    ['B'] = IS_U8,
    ['X'] = MAY_BE_REGISTER,
    ['W'] = MAY_BE_REGISTER | IS_SECOND,
    ['I'] = COUNTS | IS_SECOND,
    ['G'] = IS_BASE,
    ['R'] = IS_REGISTER,
    ['S'] = IS_REGISTER,
};
static unsigned traits(char letter) { return letter_of[letter & 127]; }

struct job {
    struct qv_machine *machine;
    struct qv_vector v;
    const struct qb_vectors *kernels;
    struct operand operand[QV_OPERANDS];
    const char *letters;
    uint64_t n;     /* elements */
    uint64_t part;  /* elements of a part */
    uint64_t width; /* of a window */
    qb_map_fn map;  /* of an elementwise instruction */
    int has_scalars;
    uint64_t first;       /* reduction: first chunk of those being reduced */
    uint64_t *chunks;     /* their results, 8 bytes each */
    _Atomic uint64_t bad; /* gather: the first index that is too great */
    _Alignas(64) uint8_t broadcast[3][BROADCAST];
};

#define REFUSE(job, stop, ...)                                                                     \
    (snprintf((job)->machine->detail, sizeof(job)->machine->detail, __VA_ARGS__), stop)

/* --- operands --- */

/* The bits of an element that a register is. */
static uint64_t narrow(unsigned type, uint64_t value)
{
    float single;
    uint32_t bits;

    if (type != QB_F32)
        return value;
    single = qv_narrow(qv_bits_float(value));
    memcpy(&bits, &single, sizeof bits);
    return bits;
}

static unsigned type_of(const struct qv_vector *v, char letter)
{
    if (traits(letter) & IS_U8)
        return QB_U8;
    return traits(letter) & IS_SECOND ? v->type2 : v->type;
}

static int resolve(struct job *job, const uint64_t *registers, int i)
{
    struct operand *o = &job->operand[i];
    unsigned type = type_of(&job->v, job->letters[i]), reg = job->v.reg[i];

    o->page = job->v.page[i];
    o->shift = qb_type_shift(type);
    if (o->page == QV_NO_PAGE) {
        o->value = job->letters[i] == 'R' ? 0 : registers[reg];
        if (traits(job->letters[i]) & MAY_BE_REGISTER) {
            o->value = narrow(type, o->value);
            o->count = UINT64_MAX;
            job->has_scalars = 1;
        }
        return 0;
    }
    const struct qv_memory *page = &job->machine->pages[o->page];
    uint64_t start = reg == QV_NO_REGISTER ? 0 : registers[reg];
    uint64_t count = page->size >> o->shift;
    if (start > count)
        return REFUSE(job, QV_TRAP_BOUNDS, "%s[%lld]: it has %llu elements", page->name,
                      (long long)start, (unsigned long long)count);
    o->start = start << o->shift;
    o->at = page->bytes ? page->bytes + o->start : NULL; /* of an empty page */
    o->count = count - start;
    return 0;
}

/* Elements that an operand must have. */
static uint64_t needed(const struct job *job, char letter)
{
    if (traits(letter) & (IS_BASE | IS_REGISTER))
        return 0;
    if (letter == 'V' && job->width > 1 && job->n > 0)
        return job->n + job->width - 1;
    return job->n;
}

/* The same elements may be read and written; others of the same page only if they are apart. */
static int overlap(const struct job *job, const struct operand *d, char written,
                   const struct operand *s, char letter)
{
    uint64_t d_size = (written == 'H' ? d->count : job->n) << d->shift;
    uint64_t s_size = (letter == 'G' ? s->count : needed(job, letter)) << s->shift;

    if (s->page != d->page || d_size == 0 || s_size == 0 || d->start >= s->start + s_size ||
        s->start >= d->start + d_size)
        return 0;
    return written == 'H' || letter == 'G' || job->width > 1 || d->start != s->start ||
           d->shift != s->shift;
}

static int check_operands(struct job *job)
{
    const struct qv_memory *pages = job->machine->pages;

    for (int i = 0; job->letters[i]; i++) {
        const struct operand *o = &job->operand[i];
        if (needed(job, job->letters[i]) > o->count)
            return REFUSE(job, QV_TRAP_BOUNDS, "%s has %llu elements there, %llu are needed",
                          pages[o->page].name, (unsigned long long)o->count,
                          (unsigned long long)needed(job, job->letters[i]));
        if (i > 0 && o->at && job->operand[0].at &&
            overlap(job, &job->operand[0], job->letters[0], o, job->letters[i]))
            return REFUSE(job, QV_TRAP_VECTOR, "ranges of %s that overlap and are not the same",
                          pages[o->page].name);
    }
    return 0;
}

/* The number of elements and the width of a window, and what it all costs. */
static int measure(struct job *job, const uint64_t *registers, int64_t *fuel)
{
    int first = 0;

    while (!(traits(job->letters[first]) & COUNTS)) /* every instruction has one */
        first++;
    job->n = job->v.count == QV_NO_REGISTER ? job->operand[first].count : registers[job->v.count];
    job->width = 1;
    if (job->v.op >= QV_WINDOW_ADD && job->v.op <= QV_WINDOW_MAX) {
        job->width = job->operand[2].value;
        if (job->width < 1 || job->width > (uint64_t)1 << 48)
            return REFUSE(job, QV_TRAP_VECTOR, "a window of %lld elements", (long long)job->width);
    }
    if (job->n > (uint64_t)1 << 48)
        return REFUSE(job, QV_TRAP_VECTOR, "%lld elements", (long long)job->n);
    uint64_t cost = 1 + job->n / 16;
    if (cost > QV_MAX_FUEL / job->width || (int64_t)(cost * job->width) > *fuel)
        return QV_OUT_OF_FUEL;
    *fuel -= (int64_t)(cost * job->width);
    return 0;
}

static void mark_dirty(const struct job *job)
{
    const struct operand *d = &job->operand[0];

    if (job->n > 0 && d->at)
        qv_touch(job->machine, d->page, d->start, d->start + (job->n << d->shift));
}

static void fill_broadcast(uint8_t *block, unsigned shift, uint64_t value, uint64_t n)
{
    size_t size = n < (uint64_t)BROADCAST >> shift ? (size_t)n << shift : BROADCAST;

    switch (shift) {
    case 0:
        memset(block, (int)(value & 0xff), size);
        break;
    case 1:
        for (uint16_t *p = (uint16_t *)(void *)block; (uint8_t *)p < block + size; p++)
            *p = (uint16_t)value;
        break;
    case 2:
        for (uint32_t *p = (uint32_t *)(void *)block; (uint8_t *)p < block + size; p++)
            *p = (uint32_t)value;
        break;
    default:
        for (uint64_t *p = (uint64_t *)(void *)block; (uint8_t *)p < block + size; p++)
            *p = value;
    }
}

/* --- parts --- */

static uint64_t part_begin(const struct job *job, size_t part) { return part * job->part; }
static uint64_t part_end(const struct job *job, size_t part)
{
    uint64_t end = (part + 1) * job->part;
    return end < job->n ? end : job->n;
}

static uint8_t *element(const struct operand *o, uint64_t i)
{
    return o->page == QV_NO_PAGE ? o->at : o->at + (i << o->shift);
}

static void map_part(void *context, size_t part)
{
    struct job *job = context;
    struct operand *o = job->operand;
    uint64_t end = part_end(job, part), step = end, i = part_begin(job, part);

    if (job->has_scalars) { /* as many as the widest operand repeats */
        unsigned shift = 0;
        for (int k = 0; k < QV_OPERANDS; k++)
            shift = o[k].shift > shift ? o[k].shift : shift;
        step = BROADCAST >> shift;
    }
    for (; i < end; i += step) {
        uint64_t n = end - i < step ? end - i : step;
        job->map(element(&o[0], i), element(&o[1], i), element(&o[2], i), element(&o[3], i),
                 (size_t)n);
    }
}

static void move_part(void *context, size_t part)
{
    struct job *job = context;
    const struct operand *d = &job->operand[0], *s = &job->operand[1];
    uint64_t from = part_begin(job, part) << d->shift, to = part_end(job, part) << d->shift;

    if (s->at != d->at)
        qb_kernels()->copy(d->at + from, s->at + from, (size_t)(to - from));
}

static void ramp_part(void *context, size_t part)
{
    struct job *job = context;
    uint64_t from = part_begin(job, part);

    job->kernels->ramp[job->v.type](element(&job->operand[0], from), &job->operand[1].value,
                                    &job->operand[2].value, from,
                                    (size_t)(part_end(job, part) - from));
}

static void window_part(void *context, size_t part)
{
    struct job *job = context;
    uint64_t from = part_begin(job, part);

    job->kernels->window[qv_ops[job->v.op].kernel][job->v.type](
        element(&job->operand[0], from), element(&job->operand[1], from), (size_t)job->width,
        (size_t)(part_end(job, part) - from));
}

static void gather_part(void *context, size_t part)
{
    struct job *job = context;
    const struct operand *o = job->operand;
    uint64_t from = part_begin(job, part), n = part_end(job, part) - from;
    uint64_t done = job->kernels->gather[o[0].shift][job->v.type2 == QB_U64](
        element(&o[0], from), o[1].at, element(&o[2], from), (size_t)n, o[1].count);

    if (done < n) {
        uint64_t bad = from + done, least = atomic_load(&job->bad);
        while (bad < least && !atomic_compare_exchange_weak(&job->bad, &least, bad))
            continue;
    }
}

/* Runs all parts, on threads if that pays. */
static void run_parts(struct job *job, void (*run)(void *context, size_t part))
{
    uint64_t bytes = job->n << job->operand[0].shift;

    if (job->n == 0)
        return;
    if (!job->machine->pool || bytes * job->width < job->machine->parallel_from) {
        job->part = job->n;
        run(job, 0);
        return;
    }
    job->part = job->machine->part >> job->operand[0].shift;
    if (job->width > 1) /* much work for few elements */
        job->part = (job->machine->part >> 8) + 1;
    qv_pool_run(job->machine->pool, run, job, (size_t)((job->n + job->part - 1) / job->part));
}

/* A register everywhere is itself or itself, as an integer of its width. */
static void fill(struct job *job)
{
    static const uint8_t types[] = {QB_U8, QB_U16, QB_U32, QB_U64};

    job->operand[2] = job->operand[1];
    job->map = job->kernels->map[QB_OR][types[job->operand[0].shift]];
    run_parts(job, map_part);
}

/* --- what is not elementwise --- */

static void reduce_part(void *context, size_t part)
{
    struct job *job = context;
    uint64_t from = (job->first + part) * QB_REDUCE_CHUNK;
    uint64_t n = job->n - from < QB_REDUCE_CHUNK ? job->n - from : QB_REDUCE_CHUNK;

    job->kernels->reduce[qv_ops[job->v.op].kernel][job->v.type](
        &job->chunks[part], element(&job->operand[1], from), (size_t)n);
}

/* The bits of an element as a register has them. */
static uint64_t widen(unsigned type, uint64_t bits)
{
    unsigned unused = 64 - (8u << qb_type_shift(type));
    float single;

    if (type == QB_F32) {
        memcpy(&single, &bits, sizeof single);
        return qv_float_bits((double)single);
    }
    if (type == QB_F64 || !(type & 1))
        return bits << unused >> unused;
    return (uint64_t)((int64_t)(bits << unused) >> unused);
}

static uint64_t reduce(struct job *job)
{
    static const uint8_t maps[QB_FOLDS] = {QB_ADD, QB_MIN, QB_MAX, QB_AND, QB_OR, QB_XOR};
    uint64_t chunks[REDUCED_TOGETHER], sum = 0,
                                       all = (job->n + QB_REDUCE_CHUNK - 1) / QB_REDUCE_CHUNK;
    qb_map_fn fold = job->kernels->map[maps[qv_ops[job->v.op].kernel]][job->v.type];

    job->chunks = chunks;
    if (job->n == 0)
        job->kernels->reduce[qv_ops[job->v.op].kernel][job->v.type](&sum, NULL, 0);
    for (job->first = 0; job->first < all; job->first += REDUCED_TOGETHER) {
        uint64_t count = all - job->first;
        count = count < REDUCED_TOGETHER ? count : REDUCED_TOGETHER;
        if (job->machine->pool &&
            count * QB_REDUCE_CHUNK << job->operand[1].shift >= job->machine->parallel_from)
            qv_pool_run(job->machine->pool, reduce_part, job, (size_t)count);
        else
            for (size_t part = 0; part < count; part++)
                reduce_part(job, part);
        for (size_t i = 0; i < count; i++) {
            if (job->first == 0 && i == 0)
                memcpy(&sum, &chunks[0], (size_t)1 << job->operand[1].shift);
            else
                fold(&sum, &sum, &chunks[i], NULL, 1);
        }
    }
    return widen(job->v.type, sum);
}

static void scan(struct job *job)
{
    static const uint8_t identities[] = {QB_FOLD_ADD, QB_FOLD_MIN, QB_FOLD_MAX};
    unsigned kernel = qv_ops[job->v.op].kernel;
    uint64_t carry = 0;

    job->kernels->reduce[identities[kernel]][job->v.type](&carry, NULL, 0);
    job->kernels->scan[kernel][job->v.type](job->operand[0].at, job->operand[1].at, &carry,
                                            (size_t)job->n);
}

static uint64_t index_at(const struct job *job, const struct operand *o, uint64_t i)
{
    uint64_t index = 0;
    memcpy(&index, o->at + (i << o->shift), job->v.type2 == QB_U64 ? 8 : 4);
    return index;
}

static int refuse_index(struct job *job, int operand, uint64_t i, const struct operand *target)
{
    return REFUSE(job, QV_TRAP_BOUNDS, "index %llu is %llu: %s has %llu elements there",
                  (unsigned long long)i,
                  (unsigned long long)index_at(job, &job->operand[operand], i),
                  job->machine->pages[target->page].name, (unsigned long long)target->count);
}

static int gather(struct job *job)
{
    atomic_store(&job->bad, UINT64_MAX);
    run_parts(job, gather_part);
    uint64_t bad = atomic_load(&job->bad);
    return bad == UINT64_MAX ? 0 : refuse_index(job, 2, bad, &job->operand[1]);
}

/* scatter and tally: one element after the other. */
static int scatter(struct job *job)
{
    const struct operand *d = &job->operand[0], *s = &job->operand[1];
    int is_tally = job->v.op == QV_TALLY;
    const struct operand *index = is_tally ? s : &job->operand[2];
    uint8_t *dirty = job->machine->pages[d->page].dirty;
    size_t size = (size_t)1 << d->shift;

    job->machine->touched[d->page] = 1;
    for (uint64_t i = 0; i < job->n; i++) {
        uint64_t to = index_at(job, index, i), count = 0;
        if (to >= d->count)
            return refuse_index(job, is_tally ? 1 : 2, i, d);
        uint8_t *at = d->at + (to << d->shift);
        if (is_tally) {
            memcpy(&count, at, size);
            count++;
            memcpy(at, &count, size);
        } else {
            memcpy(at, s->at + (i << d->shift), size);
        }
        dirty[(d->start + (to << d->shift)) / QV_BLOCK] = 1;
    }
    return 0;
}

/* --- one instruction --- */

static void prepare_scalars(struct job *job)
{
    for (int i = 1; job->letters[i]; i++) {
        struct operand *o = &job->operand[i];
        if (o->page != QV_NO_PAGE || !(traits(job->letters[i]) & MAY_BE_REGISTER))
            continue;
        o->at = job->broadcast[i - 1];
        fill_broadcast(o->at, o->shift, o->value, job->n);
    }
}

static int perform(struct job *job, uint64_t *registers)
{
    unsigned op = job->v.op;

    if (op >= QV_REDUCE_ADD && op <= QV_REDUCE_XOR) {
        registers[job->v.reg[0]] = reduce(job);
        return 0;
    }
    if (op == QV_SCATTER || op == QV_TALLY)
        return scatter(job);
    mark_dirty(job);
    if (op <= QV_VSELECT || op == QV_VCVT) {
        job->map = op == QV_VCVT ? job->kernels->convert[job->v.type2][job->v.type]
                                 : job->kernels->map[qv_ops[op].kernel][job->v.type];
        run_parts(job, map_part);
    } else if (op == QV_VMOV && job->has_scalars) {
        fill(job);
    } else if (op == QV_VMOV) {
        run_parts(job, move_part);
    } else if (op == QV_VRAMP) {
        run_parts(job, ramp_part);
    } else if (op == QV_GATHER) {
        return gather(job);
    } else if (op >= QV_WINDOW_ADD) {
        run_parts(job, window_part);
    } else {
        scan(job);
    }
    return 0;
}

int qv_vector_run(struct qv_machine *machine, uint64_t *registers, const uint64_t *words,
                  int64_t *fuel)
{
    struct job job;
    int64_t left = *fuel;
    int stop = 0;

    job.machine = machine;
    job.kernels = machine->kernels;
    job.has_scalars = 0;
    memset(job.operand, 0, sizeof job.operand);
    for (int i = 0; i < QV_OPERANDS; i++)
        job.operand[i].page = QV_NO_PAGE;
    qv_vector_decode(words, &job.v);
    job.letters = qv_ops[job.v.op].operands;
    for (int i = 0; stop == 0 && job.letters[i]; i++)
        stop = resolve(&job, registers, i);
    if (stop == 0)
        stop = measure(&job, registers, &left);
    if (stop == 0)
        stop = check_operands(&job);
    if (stop != 0)
        return stop;
    if (job.has_scalars)
        prepare_scalars(&job);
    *fuel = left;
    return perform(&job, registers);
}
