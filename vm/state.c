/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page `machine`: what a machine is beside the pages of its program. Little-endian.
 *
 *      0  8  "QVMSTATE"
 *      8  4  version, 1
 *     12  4  1 halted, else 0
 *     16  8  tick that comes next
 *     24  8  state of the random generator
 *     32  8  fuel used by all ticks
 *     40  4  function, and
 *     44  4  word where it goes on: behind a commit, at the beginning of main before the first
 *            tick, or, halted, at the halt or ret
 *     48  8  base of the registers in the stack
 *     56  8  number of calls, d
 *     64  8  registers of the stack that can ever be read again, n
 *     72  16 for each call: function and word it returns to (4 each), base of its registers
 *     ..  8n the registers
 *
 * Valid is a state that the program itself could be in as far as code goes: every return goes
 * behind a call of the function above it, or of the present definition of that function, every base
 * is the caller's plus the call's register, the first function is main. Registers may hold
 * anything.
 *
 * A page below `code`: arguments, registers, number of words, world in which the function was
 * defined (4 bytes each), the words. If it is a function of n pages, or pure (n = 0): then n in 8
 * bytes, and n bytes, the types of these pages, with zeros up to a multiple of 8.
 */
#include "vm/state.h"

#include <stdio.h>
#include <string.h>

#include "runtime/bytes.h"
#include "runtime/error.h"
#include "runtime/os.h"

enum { HEADER = 72, CALL = 16, FUNCTION_HEADER = 16, VERSION = 1 };
static const char MAGIC[8] = {'Q', 'V', 'M', 'S', 'T', 'A', 'T', 'E'};

/* The registers that some function in progress has. */
static uint64_t stack_used(const struct qv_machine *m)
{
    uint64_t used = 0, base = m->base, end;
    uint32_t function, word;
    const uint64_t *pc = m->pc;

    for (uint64_t i = m->depth + 1; i-- > 0;) {
        qv_locate(m, pc, &function, &word);
        end = base + m->entries[function].registers;
        used = end > used ? end : used;
        if (i > 0) {
            pc = m->frames[i - 1].pc;
            base = m->frames[i - 1].base;
        }
    }
    return used;
}

size_t qv_state_size(const struct qv_machine *machine)
{
    return HEADER + machine->depth * CALL + stack_used(machine) * 8;
}

size_t qv_state_limit(const struct qv_program *program)
{
    return HEADER + (size_t)program->depth * CALL + (size_t)program->stack * 8;
}

static void put_place(const struct qv_machine *m, const uint64_t *pc, uint8_t *bytes)
{
    uint32_t function, word;

    qv_locate(m, pc, &function, &word);
    qr_store32(bytes, function);
    qr_store32(bytes + 4, word);
}

void qv_state_encode(const struct qv_machine *m, uint8_t *bytes)
{
    uint64_t used = stack_used(m);

    memcpy(bytes, MAGIC, sizeof MAGIC);
    qr_store32(bytes + 8, VERSION);
    qr_store32(bytes + 12, (uint32_t)m->halted);
    qr_store64(bytes + 16, m->tick);
    qr_store64(bytes + 24, m->random);
    qr_store64(bytes + 32, m->fuel_used);
    put_place(m, m->pc, bytes + 40);
    qr_store64(bytes + 48, m->base);
    qr_store64(bytes + 56, m->depth);
    qr_store64(bytes + 64, used);
    bytes += HEADER;
    for (uint64_t i = 0; i < m->depth; i++, bytes += CALL) {
        put_place(m, m->frames[i].pc, bytes);
        qr_store64(bytes + 8, m->frames[i].base);
    }
    memcpy(bytes, m->stack, used * 8);
}

/* --- back --- */

#define INVALID(...) qr_fail(QALLOW_E_SERIALIZATION, "page machine: " __VA_ARGS__)

/* For each word of the linked code the opcode that begins there, or QV_OPS. */
static uint8_t *find_instructions(const struct qv_machine *m)
{
    uint8_t *starts = qr_malloc(m->code_words);

    if (!starts)
        return NULL;
    memset(starts, QV_OPS, m->code_words);
    for (uint64_t word = 0; word < m->code_words;) {
        unsigned op = qv_word_op(m->code[word]);
        starts[word] = (uint8_t)op;
        word += qv_op_words(op);
    }
    return starts;
}

/* A place in the code at which an instruction begins; its index in the linked code. */
static int get_place(const struct qv_machine *m, const uint8_t *starts, const uint8_t *bytes,
                     uint64_t *index)
{
    uint32_t function = qr_load32(bytes), word = qr_load32(bytes + 4);

    if (function >= m->program->function_count || word >= m->entries[function].words)
        return INVALID("word %u of function %u, which there is not", word, function);
    *index = (uint64_t)(m->entries[function].code - m->code) + word;
    if (starts[*index] == QV_OPS)
        return INVALID("word %u of function %u is no instruction", word, function);
    return 0;
}

static int check_window(const struct qv_machine *m, uint32_t function, uint64_t base)
{
    if (base > m->program->stack || m->entries[function].registers > m->program->stack - base)
        return INVALID("the registers of function %u lie beyond the stack", function);
    return 0;
}

/* The calls from main up to the function that goes on. */
static int decode_calls(struct qv_machine *m, const uint8_t *starts, const uint8_t *bytes,
                        uint32_t function, uint64_t base)
{
    uint64_t index = 0, expected_base = 0;
    uint32_t expected = (uint32_t)qv_find_function(m->program, "main");
    int rc = 0;

    for (uint64_t i = 0; i < m->depth; i++, bytes += CALL) {
        uint64_t at = qr_load64(bytes + 8);
        rc = get_place(m, starts, bytes, &index);
        if (rc < 0)
            return rc;
        uint32_t caller = qr_load32(bytes);
        if (qv_current_of(m->program, caller) != expected || at != expected_base)
            return INVALID("call %llu is not of the function below it", (unsigned long long)i);
        if (qr_load32(bytes + 4) == 0 || starts[index - 1] != QV_CALL)
            return INVALID("call %llu returns to where no call is", (unsigned long long)i);
        rc = check_window(m, caller, expected_base);
        if (rc < 0)
            return rc;
        m->frames[i].pc = m->code + index;
        m->frames[i].base = at;
        expected = (uint32_t)qv_word_imm(m->code[index - 1]);
        expected_base = at + qv_word_a(m->code[index - 1]);
    }
    if (qv_current_of(m->program, function) != expected || base != expected_base)
        return INVALID("the function that goes on is not the one that was called");
    return check_window(m, function, base);
}

/* Where the machine goes on: a tick begins behind a commit. */
static int decode_place(struct qv_machine *m, const uint8_t *starts, const uint8_t *bytes)
{
    uint64_t index = 0;
    int rc = get_place(m, starts, bytes + 40, &index);

    if (rc < 0)
        return rc;
    uint32_t function = qr_load32(bytes + 40), word = qr_load32(bytes + 44);
    if (m->halted) {
        if (starts[index] != QV_HALT && (starts[index] != QV_RET || m->depth != 0))
            return INVALID("it has halted where no halt is");
    } else if (word == 0 ? m->tick != 1 || m->depth != 0 : starts[index - 1] != QV_COMMIT) {
        return INVALID("it goes on where no commit is");
    }
    m->pc = m->code + index;
    m->base = qr_load64(bytes + 48);
    return decode_calls(m, starts, bytes + HEADER, function, m->base);
}

int qv_state_decode(struct qv_machine *m, const uint8_t *bytes, size_t length)
{
    if (length < HEADER || memcmp(bytes, MAGIC, sizeof MAGIC) != 0)
        return INVALID("it is something else");
    if (qr_load32(bytes + 8) != VERSION)
        return qr_fail(QALLOW_E_VERSION, "page machine: version %u; this is for version %d",
                       qr_load32(bytes + 8), VERSION);
    uint64_t used = qr_load64(bytes + 64);
    m->depth = qr_load64(bytes + 56);
    m->halted = qr_load32(bytes + 12) == 1;
    m->tick = qr_load64(bytes + 16);
    m->random = qr_load64(bytes + 24);
    m->fuel_used = qr_load64(bytes + 32);
    if (qr_load32(bytes + 12) > 1 || m->tick == 0 || m->depth > m->program->depth ||
        used > m->program->stack || length != HEADER + m->depth * CALL + used * 8)
        return INVALID("numbers that do not fit together");
    uint8_t *starts = find_instructions(m);
    if (!starts)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory to check the state");
    int rc = decode_place(m, starts, bytes);
    qr_free(starts);
    if (rc == 0 && stack_used(m) != used)
        rc = INVALID("%llu registers, %llu are in use", (unsigned long long)used,
                     (unsigned long long)stack_used(m));
    if (rc == 0)
        memcpy(m->stack, bytes + HEADER + m->depth * CALL, used * 8);
    return rc;
}

void qv_state_moment(const uint8_t bytes[QV_STATE_MOMENT], uint64_t *tick, uint64_t *fuel_used)
{
    *tick = qr_load64(bytes + 16);
    *fuel_used = qr_load64(bytes + 32);
}

void qv_state_renumber(uint8_t *bytes, const uint32_t *numbers)
{
    uint64_t depth = qr_load64(bytes + 56);

    qr_store32(bytes + 40, numbers[qr_load32(bytes + 40)]);
    for (uint64_t i = 0; i < depth; i++)
        qr_store32(bytes + HEADER + i * CALL, numbers[qr_load32(bytes + HEADER + i * CALL)]);
}

/* --- functions --- */

/* What stands behind the words. */
static size_t tail_size(const struct qv_function *f)
{
    return f->is_closed ? 8 + (f->formal_count + 7) / 8 * 8 : 0;
}

int qv_function_encode(const struct qv_function *f, uint8_t **bytes, size_t *length)
{
    *length = FUNCTION_HEADER + f->word_count * 8 + tail_size(f);
    *bytes = qr_malloc(*length);
    if (!*bytes)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the code of %s", f->name);
    qr_store32(*bytes, f->arguments);
    qr_store32(*bytes + 4, f->registers);
    qr_store32(*bytes + 8, (uint32_t)f->word_count);
    qr_store32(*bytes + 12, f->age);
    memcpy(*bytes + FUNCTION_HEADER, f->words, f->word_count * 8);
    uint8_t *tail = *bytes + FUNCTION_HEADER + f->word_count * 8;
    memset(tail, 0, tail_size(f));
    if (f->is_closed)
        qr_store64(tail, f->formal_count);
    for (size_t i = 0; i < f->formal_count; i++)
        tail[8 + i] = (uint8_t)f->formals[i].type;
    return 0;
}

/* The names of pages are only in the text; here they get others. */
static int decode_tail(const uint8_t *tail, size_t length, struct qv_function *f)
{
    uint64_t count = length < 8 ? QV_MAX_PARENTS + 2 : qr_load64(tail);

    f->is_closed = 1;
    f->formal_count = count <= QV_MAX_PARENTS + 1 ? (size_t)count : 0;
    if (count > QV_MAX_PARENTS + 1 || length != tail_size(f))
        return qr_fail(QALLOW_E_SERIALIZATION, "a function with %zu bytes behind its code", length);
    f->formals = qr_calloc(f->formal_count + 1, sizeof *f->formals);
    if (!f->formals)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the pages of a function");
    f->formal_capacity = f->formal_count + 1;
    for (size_t i = 0; i < length - 8; i++)
        if (i < count ? tail[8 + i] >= QB_TYPES : tail[8 + i] != 0)
            return qr_fail(QALLOW_E_SERIALIZATION, "a function of a page of type %u", tail[8 + i]);
    for (size_t i = 0; i < count; i++) {
        f->formals[i].type = tail[8 + i];
        snprintf(f->formals[i].name, sizeof f->formals[i].name, i ? "in%zu" : "out", i);
    }
    return 0;
}

int qv_function_decode(const uint8_t *bytes, size_t length, struct qv_function *f)
{
    memset(f, 0, sizeof *f);
    if (length < FUNCTION_HEADER || qr_load32(bytes + 8) > QV_MAX_WORDS ||
        qr_load32(bytes + 12) > QV_MAX_WORLD ||
        length - FUNCTION_HEADER < (size_t)qr_load32(bytes + 8) * 8)
        return qr_fail(QALLOW_E_SERIALIZATION, "a page of code of %zu bytes", length);
    f->arguments = qr_load32(bytes);
    f->registers = qr_load32(bytes + 4);
    f->age = qr_load32(bytes + 12);
    f->word_count = f->word_capacity = qr_load32(bytes + 8);
    f->words = qr_malloc(f->word_count * 8 + 8);
    if (!f->words)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for %zu words of code", f->word_count);
    memcpy(f->words, bytes + FUNCTION_HEADER, f->word_count * 8);
    size_t used = FUNCTION_HEADER + f->word_count * 8;
    int rc = length > used ? decode_tail(bytes + used, length - used, f) : 0;
    if (rc < 0) {
        qr_free(f->words);
        qr_free(f->formals);
        memset(f, 0, sizeof *f);
    }
    return rc;
}
