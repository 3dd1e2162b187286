/* SPDX-License-Identifier: Apache-2.0 */
/* The table of instructions as data: what the assembler, verifier and disassembler look up. */
#include "vm/instruction.h"

#include <string.h>

const struct qv_op_info qv_ops[QV_OPS] = {
#define QV_SCALAR(NAME, mnemonic, operands, body, text) {mnemonic, operands, text, 0, 0, 0},
#define QV_VECTOR(NAME, mnemonic, operands, types, kernel, text)                                   \
    {mnemonic, operands, text, 1, QV_TYPES_##types, kernel},
#include "vm/table.h"
};

const char *const qv_type_names[QB_TYPES] = {"u8",  "i8",  "u16", "i16", "u32",
                                             "i32", "u64", "i64", "f32", "f64"};

int qv_types_fit(unsigned op, unsigned type, unsigned type2)
{
    if (type >= QB_TYPES || type2 >= QB_TYPES || (type2 != 0 && !qv_has_two_types(op)))
        return 0;
    switch (qv_ops[op].types) {
    case QV_TYPES_INT:
        return !qb_type_is_float(type);
    case QV_TYPES_FLOAT:
        return qb_type_is_float(type);
    case QV_TYPES_INDEX:
        return type2 == QB_U32 || type2 == QB_U64;
    case QV_TYPES_COUNT:
        return !qb_type_is_float(type) && (type2 == QB_U32 || type2 == QB_U64);
    default:
        return 1;
    }
}

unsigned qv_written_page(const uint64_t *words)
{
    unsigned op = qv_word_op(words[0]);
    struct qv_vector v;

    if (!qv_ops[op].is_vector)
        return strchr(qv_ops[op].operands, 'w') ? qv_word_page(words[0]) : QV_NO_PAGE;
    qv_vector_decode(words, &v);
    return strchr("DMH", qv_ops[op].operands[0]) ? v.page[0] : QV_NO_PAGE;
}
