/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How instructions are written as words of 64 bits; little-endian in logs (docs/vm.md, "Code").
 *
 *   scalar   op:8  a:8  b:8  c:8  imm:32
 *            element of a page: imm = page:16 | offset:16 (signed); small number: b | c << 8
 *            lc: the next word is the constant
 *   vector   op:8  type:4  second type:4  count:8  r0:8  r1:8  r2:8  r3:8  0:8
 *            p0:16  p1:16  p2:16  p3:16
 *            operand i is a range: page p, from the element that register r says (none: 0); or
 *            (p none) the register r; or both none
 *
 * Fields that an instruction does not use are 0, so that there is one spelling of each.
 */
#ifndef QV_INSTRUCTION_H
#define QV_INSTRUCTION_H

#include <stdint.h>

#include "backend/vector.h"

enum qv_op {
#define QV_SCALAR(NAME, mnemonic, operands, body, text)          QV_##NAME,
#define QV_VECTOR(NAME, mnemonic, operands, types, kernel, text) QV_##NAME,
#include "vm/table.h"
    QV_OPS
};

enum {
    QV_NO_REGISTER = 0xff,
    QV_REGISTERS = 255, /* r0 to r254 */
    QV_NO_PAGE = 0xffff,
    QV_OPERANDS = 4, /* at most */
};

enum qv_types {
    QV_TYPES_NONE,
    QV_TYPES_ANY,
    QV_TYPES_INT,
    QV_TYPES_FLOAT,
    QV_TYPES_PAIR,
    QV_TYPES_INDEX,
    QV_TYPES_COUNT
};

struct qv_op_info {
    const char *mnemonic, *operands, *text;
    uint8_t is_vector;
    uint8_t types;  /* enum qv_types */
    uint8_t kernel; /* enum qb_map or qb_fold of a vector instruction */
};
extern const struct qv_op_info qv_ops[QV_OPS];
extern const char *const qv_type_names[QB_TYPES];

static inline unsigned qv_word_op(uint64_t w) { return (unsigned)(w & 0xff); }
static inline unsigned qv_word_a(uint64_t w) { return (unsigned)(w >> 8 & 0xff); }
static inline unsigned qv_word_b(uint64_t w) { return (unsigned)(w >> 16 & 0xff); }
static inline unsigned qv_word_c(uint64_t w) { return (unsigned)(w >> 24 & 0xff); }
static inline int64_t qv_word_imm(uint64_t w) { return (int64_t)w >> 32; }
static inline int64_t qv_word_half(uint64_t w) { return (int16_t)(w >> 16); }
static inline unsigned qv_word_page(uint64_t w) { return (unsigned)(w >> 32 & 0xffff); }
static inline int64_t qv_word_offset(uint64_t w) { return (int64_t)w >> 48; }
static inline uint64_t qv_word(unsigned op, unsigned a, unsigned b, unsigned c, int64_t imm)
{
    return (uint64_t)op | (uint64_t)a << 8 | (uint64_t)b << 16 | (uint64_t)c << 24 |
           (uint64_t)imm << 32;
}
static inline int64_t qv_element(unsigned page, int64_t offset)
{
    return (int64_t)(page | (uint64_t)offset << 16);
}

struct qv_vector {
    unsigned op, type, type2, count; /* count: a register or none */
    unsigned reg[QV_OPERANDS], page[QV_OPERANDS];
};
static inline void qv_vector_decode(const uint64_t words[2], struct qv_vector *v)
{
    v->op = qv_word_op(words[0]);
    v->type = (unsigned)(words[0] >> 8 & 15);
    v->type2 = (unsigned)(words[0] >> 12 & 15);
    v->count = (unsigned)(words[0] >> 16 & 0xff);
    for (int i = 0; i < QV_OPERANDS; i++) {
        v->reg[i] = (unsigned)(words[0] >> (24 + 8 * i) & 0xff);
        v->page[i] = (unsigned)(words[1] >> 16 * i & 0xffff);
    }
}
static inline void qv_vector_encode(const struct qv_vector *v, uint64_t words[2])
{
    words[0] = (uint64_t)v->op | (uint64_t)v->type << 8 | (uint64_t)v->type2 << 12 |
               (uint64_t)v->count << 16;
    words[1] = 0;
    for (int i = 0; i < QV_OPERANDS; i++) {
        words[0] |= (uint64_t)v->reg[i] << (24 + 8 * i);
        words[1] |= (uint64_t)v->page[i] << 16 * i;
    }
}
/* Whether a vector instruction has two types, and the words of an instruction with this opcode. */
static inline int qv_has_two_types(unsigned op) { return qv_ops[op].types >= QV_TYPES_PAIR; }
static inline unsigned qv_op_words(unsigned op)
{
    return qv_ops[op].is_vector || op == QV_LC ? 2 : 1;
}
/* The page that an instruction writes to, by its operands, or QV_NO_PAGE. */
unsigned qv_written_page(const uint64_t *words);
/* 1 if an instruction may be of these types; type2 is 0 where there is one only. */
int qv_types_fit(unsigned op, unsigned type, unsigned type2);

#endif
