/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one table of instructions. The assembler, the verifier, the interpreter, the disassembler and
 * the reference in docs/vm.md are made from it and from nothing else. It is included with these
 * macros defined, those that are wanted:
 *
 *   QV_SCALAR(NAME, mnemonic, operands, body, text)
 *   QV_VECTOR(NAME, mnemonic, operands, types, kernel, text)
 *
 * The opcode is the position in the table and stands in logs: new instructions go to the end of the
 * second part, none is moved or taken out.
 *
 * operands, one letter each, in the order in which they are written:
 *   A B C   a register, in field a, b, c
 *   i       an integer of 32 bits, in field imm
 *   h       an integer of 16 bits, in fields b and c
 *   k       an integer or float of 64 bits, the word behind the instruction
 *   j       a label: words from the next instruction, in field imm
 *   g       a function, in field imm
 *   m w     an element of a page, page[register + number]: field b, imm; w is one that is written
 *   p       a page, in field imm
 *   n       a name that is emitted, in field imm
 * and of vector instructions (two words, see vm/instruction.h), which end with `for REGISTER`, the
 * number of elements, unless all are meant:
 *   D       a range of a page that is written, of the type of the instruction
 *   M       a range of a page that is written, of u8
 *   V B     a range of a page; B of u8
 *   X W     a range or, for all elements, a register; W of the second type
 *   I       a range of indexes, of the second type
 *   G H     a page from an element to its end; H is written
 *   R       a register that gets the result
 *   S       a register that is read
 * The first of D, M, V and I says how many elements are meant.
 *
 * types: ANY, INT, FLOAT; PAIR: two of any; INDEX: any, and one of u32 and u64; COUNT: an integer,
 * and one of u32 and u64.
 *
 * `body` is what the interpreter does (vm/interpret_loop.h): A is the register a; B and C are the
 * values of b and c, as unsigned numbers, SB and SC as signed ones, FA, FB and FC as floats. */
/* clang-format off */
#ifndef QV_SCALAR
#define QV_SCALAR(NAME, mnemonic, operands, body, text)
#endif
#ifndef QV_VECTOR
#define QV_VECTOR(NAME, mnemonic, operands, types, kernel, text)
#endif

/* --- registers --- */
QV_SCALAR(NOP, "nop", "", , "nothing")
QV_SCALAR(MOV, "mov", "AB", A = B, "a = b")
QV_SCALAR(LI, "li", "Ai", A = (uint64_t)IMM, "a = the number, sign-extended to 64 bits")
QV_SCALAR(LC, "lc", "Ak", A = *pc++, "a = the number, of 64 bits; a float if it has a point")
QV_SCALAR(SEL, "sel", "ABC", A = A != 0 ? B : C, "a = b if a is not 0, else c")

/* --- integers of 64 bits --- */
QV_SCALAR(ADD, "add", "ABC", A = B + C, "a = b + c, wrapping")
QV_SCALAR(SUB, "sub", "ABC", A = B - C, "a = b - c, wrapping")
QV_SCALAR(MUL, "mul", "ABC", A = B * C, "a = b * c, wrapping")
QV_SCALAR(MULHU, "mulhu", "ABC", A = qv_mulhu(B, C), "a = the upper 64 bits of b * c, unsigned")
QV_SCALAR(DIV, "div", "ABC", A = qv_div(SB, SC),
          "a = b / c, signed, towards 0; -1 if c is 0; the least number / -1 is itself")
QV_SCALAR(DIVU, "divu", "ABC", A = C != 0 ? B / C : ~(uint64_t)0,
          "a = b / c, unsigned; all ones if c is 0")
QV_SCALAR(REM, "rem", "ABC", A = qv_rem(SB, SC), "a = b - (b / c) * c, signed; b if c is 0")
QV_SCALAR(REMU, "remu", "ABC", A = C != 0 ? B % C : B, "a = b modulo c, unsigned; b if c is 0")
QV_SCALAR(AND, "and", "ABC", A = B & C, "a = b and c, bit by bit")
QV_SCALAR(OR, "or", "ABC", A = B | C, "a = b or c, bit by bit")
QV_SCALAR(XOR, "xor", "ABC", A = B ^ C, "a = b exclusive-or c, bit by bit")
QV_SCALAR(SHL, "shl", "ABC", A = B << (C & 63), "a = b shifted left by c modulo 64")
QV_SCALAR(SHR, "shr", "ABC", A = B >> (C & 63), "a = b shifted right by c modulo 64, zeros come in")
QV_SCALAR(SAR, "sar", "ABC", A = (uint64_t)(SB >> (C & 63)),
          "a = b shifted right by c modulo 64, the sign comes in")
QV_SCALAR(ROTL, "rotl", "ABC", A = qv_rotl(B, C), "a = b rotated left by c modulo 64")
QV_SCALAR(MIN, "min", "ABC", A = SB < SC ? B : C, "a = the lesser of b and c, signed")
QV_SCALAR(MAX, "max", "ABC", A = SB > SC ? B : C, "a = the greater of b and c, signed")
QV_SCALAR(MINU, "minu", "ABC", A = B < C ? B : C, "a = the lesser of b and c, unsigned")
QV_SCALAR(MAXU, "maxu", "ABC", A = B > C ? B : C, "a = the greater of b and c, unsigned")
QV_SCALAR(NEG, "neg", "AB", A = 0 - B, "a = -b, wrapping")
QV_SCALAR(NOT, "not", "AB", A = ~B, "a = b with every bit changed")
QV_SCALAR(CLZ, "clz", "AB", A = B != 0 ? (uint64_t)__builtin_clzll(B) : 64,
          "a = zeros above the highest one of b; 64 if b is 0")
QV_SCALAR(CTZ, "ctz", "AB", A = B != 0 ? (uint64_t)__builtin_ctzll(B) : 64,
          "a = zeros below the lowest one of b; 64 if b is 0")
QV_SCALAR(POPCNT, "popcnt", "AB", A = (uint64_t)__builtin_popcountll(B), "a = ones in b")
QV_SCALAR(ADDI, "addi", "ABi", A = B + (uint64_t)IMM, "a = b + the number, wrapping")
QV_SCALAR(MULI, "muli", "ABi", A = B * (uint64_t)IMM, "a = b * the number, wrapping")
QV_SCALAR(ANDI, "andi", "ABi", A = B & (uint64_t)IMM, "a = b and the number, sign-extended")
QV_SCALAR(ORI, "ori", "ABi", A = B | (uint64_t)IMM, "a = b or the number, sign-extended")
QV_SCALAR(XORI, "xori", "ABi", A = B ^ (uint64_t)IMM,
          "a = b exclusive-or the number, sign-extended")
QV_SCALAR(SHLI, "shli", "ABi", A = B << (IMM & 63), "a = b shifted left by the number modulo 64")
QV_SCALAR(SHRI, "shri", "ABi", A = B >> (IMM & 63), "a = b shifted right, zeros come in")
QV_SCALAR(SARI, "sari", "ABi", A = (uint64_t)(SB >> (IMM & 63)),
          "a = b shifted right, the sign comes in")
QV_SCALAR(EQ, "eq", "ABC", A = B == C, "a = 1 if b = c, else 0")
QV_SCALAR(NE, "ne", "ABC", A = B != C, "a = 1 if b differs from c, else 0")
QV_SCALAR(LT, "lt", "ABC", A = SB < SC, "a = 1 if b < c, signed, else 0")
QV_SCALAR(LE, "le", "ABC", A = SB <= SC, "a = 1 if b <= c, signed, else 0")
QV_SCALAR(LTU, "ltu", "ABC", A = B < C, "a = 1 if b < c, unsigned, else 0")
QV_SCALAR(LEU, "leu", "ABC", A = B <= C, "a = 1 if b <= c, unsigned, else 0")

/* --- floats of 64 bits --- */
QV_SCALAR(FADD, "fadd", "ABC", SETF(FB + FC), "a = b + c")
QV_SCALAR(FSUB, "fsub", "ABC", SETF(FB - FC), "a = b - c")
QV_SCALAR(FMUL, "fmul", "ABC", SETF(FB * FC), "a = b * c")
QV_SCALAR(FDIV, "fdiv", "ABC", SETF(FB / FC), "a = b / c")
QV_SCALAR(FMIN, "fmin", "ABC", SETF(qv_fmin(FB, FC)),
          "a = the lesser of b and c; NaN if one is; -0 is below +0")
QV_SCALAR(FMAX, "fmax", "ABC", SETF(qv_fmax(FB, FC)),
          "a = the greater of b and c; NaN if one is; -0 is below +0")
QV_SCALAR(FNEG, "fneg", "AB", SETF(-FB), "a = -b")
QV_SCALAR(FABS, "fabs", "AB", SETF(__builtin_fabs(FB)), "a = b without its sign")
QV_SCALAR(FSQRT, "fsqrt", "AB", SETF(sqrt(FB)), "a = the square root of b")
QV_SCALAR(FFLOOR, "ffloor", "AB", SETF(floor(FB)), "a = b rounded down")
QV_SCALAR(FCEIL, "fceil", "AB", SETF(ceil(FB)), "a = b rounded up")
QV_SCALAR(FTRUNC, "ftrunc", "AB", SETF(trunc(FB)), "a = b rounded towards 0")
QV_SCALAR(FROUND, "fround", "AB", SETF(rint(FB)), "a = b rounded to the nearest, ties to even")
QV_SCALAR(FSINGLE, "fsingle", "AB", SETF((double)(float)FB), "a = b rounded to 32 bits")
QV_SCALAR(FEQ, "feq", "ABC", A = FB == FC, "a = 1 if b = c, else 0, also if one is NaN")
QV_SCALAR(FLT, "flt", "ABC", A = FB < FC, "a = 1 if b < c, else 0, also if one is NaN")
QV_SCALAR(FLE, "fle", "ABC", A = FB <= FC, "a = 1 if b <= c, else 0, also if one is NaN")
QV_SCALAR(ITOF, "itof", "AB", SETF((double)SB),
          "a = the signed integer b as a float, to nearest even")
QV_SCALAR(UTOF, "utof", "AB", SETF((double)B),
          "a = the unsigned integer b as a float, to nearest even")
QV_SCALAR(FTOI, "ftoi", "AB", A = qv_ftoi(FB),
          "a = b towards 0 as a signed integer, saturated; 0 for NaN")
QV_SCALAR(FTOU, "ftou", "AB", A = qv_ftou(FB),
          "a = b towards 0 as an unsigned integer, saturated; 0 for NaN")

/* --- jumps: a taken jump backwards costs fuel --- */
QV_SCALAR(JMP, "jmp", "j", JUMP_IF(1), "goes on at the label")
QV_SCALAR(JEQ, "jeq", "ABj", JUMP_IF(A == B), "jumps if a = b")
QV_SCALAR(JNE, "jne", "ABj", JUMP_IF(A != B), "jumps if a differs from b")
QV_SCALAR(JLT, "jlt", "ABj", JUMP_IF((int64_t)A < SB), "jumps if a < b, signed")
QV_SCALAR(JLE, "jle", "ABj", JUMP_IF((int64_t)A <= SB), "jumps if a <= b, signed")
QV_SCALAR(JLTU, "jltu", "ABj", JUMP_IF(A < B), "jumps if a < b, unsigned")
QV_SCALAR(JLEU, "jleu", "ABj", JUMP_IF(A <= B), "jumps if a <= b, unsigned")
QV_SCALAR(JEQI, "jeqi", "Ahj", JUMP_IF((int64_t)A == HALF), "jumps if a = the number")
QV_SCALAR(JNEI, "jnei", "Ahj", JUMP_IF((int64_t)A != HALF), "jumps if a differs from the number")
QV_SCALAR(JLTI, "jlti", "Ahj", JUMP_IF((int64_t)A < HALF), "jumps if a < the number, signed")
QV_SCALAR(JLEI, "jlei", "Ahj", JUMP_IF((int64_t)A <= HALF), "jumps if a <= the number, signed")
QV_SCALAR(JGTI, "jgti", "Ahj", JUMP_IF((int64_t)A > HALF), "jumps if a > the number, signed")
QV_SCALAR(JGEI, "jgei", "Ahj", JUMP_IF((int64_t)A >= HALF), "jumps if a >= the number, signed")
QV_SCALAR(JFLT, "jflt", "ABj", JUMP_IF(FA < FB), "jumps if a < b, floats; not if one is NaN")
QV_SCALAR(JFLE, "jfle", "ABj", JUMP_IF(FA <= FB), "jumps if a <= b, floats; not if one is NaN")
QV_SCALAR(CALL, "call", "Ag", CALL_FUNCTION(),
          "calls a function; register a becomes its r0, where its arguments begin and where it "
          "leaves its results. Its other registers begin with 0. Registers from a on are what it "
          "left in them")
QV_SCALAR(RET, "ret", "", RETURN_FROM(),
          "goes on behind the call; in `main` without a call: as halt")

/* --- pages --- */
QV_SCALAR(LDU8, "ld.u8", "Am", LOAD(uint8_t, 0, v), "a = the element of the page as u8s")
QV_SCALAR(LDI8, "ld.i8", "Am", LOAD(int8_t, 0, (uint64_t)(int64_t)v), "as i8s, sign-extended")
QV_SCALAR(LDU16, "ld.u16", "Am", LOAD(uint16_t, 1, v), "as u16s")
QV_SCALAR(LDI16, "ld.i16", "Am", LOAD(int16_t, 1, (uint64_t)(int64_t)v), "as i16s, sign-extended")
QV_SCALAR(LDU32, "ld.u32", "Am", LOAD(uint32_t, 2, v), "as u32s")
QV_SCALAR(LDI32, "ld.i32", "Am", LOAD(int32_t, 2, (uint64_t)(int64_t)v), "as i32s, sign-extended")
QV_SCALAR(LD64, "ld.64", "Am", LOAD(uint64_t, 3, v), "as u64s, i64s or f64s")
QV_SCALAR(LDF32, "ld.f32", "Am", LOAD(float, 2, qv_float_bits((double)v)),
          "as f32s, widened to f64")
QV_SCALAR(ST8, "st.8", "Aw", STORE(uint8_t, 0, (uint8_t)A),
          "the element of the page as u8s or i8s = the lowest 8 bits of a")
QV_SCALAR(ST16, "st.16", "Aw", STORE(uint16_t, 1, (uint16_t)A),
          "as u16s or i16s = the lowest 16 bits of a")
QV_SCALAR(ST32, "st.32", "Aw", STORE(uint32_t, 2, (uint32_t)A),
          "as u32s or i32s = the lowest 32 bits of a")
QV_SCALAR(ST64, "st.64", "Aw", STORE(uint64_t, 3, A), "as u64s, i64s or f64s = a")
QV_SCALAR(STF32, "st.f32", "Aw", STORE(float, 2, qv_narrow(FA)),
          "as f32s = the f64 a, rounded to nearest even")
QV_SCALAR(LEN, "len", "Ap", A = pages[(uint32_t)IMM].count,
          "a = the elements of the page, of its declared type")

/* --- the machine --- */
QV_SCALAR(COMMIT, "commit", "", STOP(QV_TICK_DONE),
          "ends the tick: the state becomes an epoch; the next tick goes on behind it")
QV_SCALAR(HALT, "halt", "", STAY(QV_HALTED), "ends the last tick and the program")
QV_SCALAR(TRAP, "trap", "i", STAY(QV_TRAP_PROGRAM),
          "fails with the number: the tick never was")
QV_SCALAR(EMIT, "emit", "nA", EMIT_VALUE(QV_EMIT_I64),
          "gives a, a signed integer, to the world under the name")
QV_SCALAR(EMITU, "emit.u64", "nA", EMIT_VALUE(QV_EMIT_U64), "an unsigned integer")
QV_SCALAR(EMITF, "emit.f64", "nA", EMIT_VALUE(QV_EMIT_F64), "a float")
QV_SCALAR(RAND, "rand", "A", A = qv_random(m),
          "a = the next number of the seeded generator (SplitMix64)")
QV_SCALAR(TICK, "tick", "A", A = m->tick, "a = the number of this tick, from 1")

/* --- vectors --- */
QV_VECTOR(VADD, "vadd", "DXX", ANY, QB_ADD, "d = x + y; integers wrap")
QV_VECTOR(VSUB, "vsub", "DXX", ANY, QB_SUB, "d = x - y; integers wrap")
QV_VECTOR(VMUL, "vmul", "DXX", ANY, QB_MUL, "d = x * y; integers wrap")
QV_VECTOR(VDIV, "vdiv", "DXX", ANY, QB_DIV, "d = x / y; integers as div and divu")
QV_VECTOR(VREM, "vrem", "DXX", INT, QB_REM, "d = the remainder, as rem and remu")
QV_VECTOR(VAND, "vand", "DXX", INT, QB_AND, "d = x and y, bit by bit")
QV_VECTOR(VOR, "vor", "DXX", INT, QB_OR, "d = x or y, bit by bit")
QV_VECTOR(VXOR, "vxor", "DXX", INT, QB_XOR, "d = x exclusive-or y, bit by bit")
QV_VECTOR(VNOT, "vnot", "DX", INT, QB_NOT, "d = x with every bit changed")
QV_VECTOR(VSHL, "vshl", "DXX", INT, QB_SHL, "d = x shifted left by y modulo the width")
QV_VECTOR(VSHR, "vshr", "DXX", INT, QB_SHR,
          "d = x shifted right by y modulo the width; the sign comes in if the type has one")
QV_VECTOR(VMIN, "vmin", "DXX", ANY, QB_MIN, "d = the lesser; floats as fmin")
QV_VECTOR(VMAX, "vmax", "DXX", ANY, QB_MAX, "d = the greater; floats as fmax")
QV_VECTOR(VNEG, "vneg", "DX", ANY, QB_NEG, "d = -x; integers wrap")
QV_VECTOR(VABS, "vabs", "DX", ANY, QB_ABS, "d = x without its sign; the least integer stays")
QV_VECTOR(VSQRT, "vsqrt", "DX", FLOAT, QB_SQRT, "d = the square root of x")
QV_VECTOR(VFLOOR, "vfloor", "DX", FLOAT, QB_FLOOR, "d = x rounded down")
QV_VECTOR(VCEIL, "vceil", "DX", FLOAT, QB_CEIL, "d = x rounded up")
QV_VECTOR(VTRUNC, "vtrunc", "DX", FLOAT, QB_TRUNC, "d = x rounded towards 0")
QV_VECTOR(VROUND, "vround", "DX", FLOAT, QB_ROUND, "d = x rounded to the nearest, ties to even")
QV_VECTOR(VEQ, "veq", "MXX", ANY, QB_EQ, "d, of u8, = 1 where x = y, else 0")
QV_VECTOR(VNE, "vne", "MXX", ANY, QB_NE, "d, of u8, = 1 where x differs from y, else 0")
QV_VECTOR(VLT, "vlt", "MXX", ANY, QB_LT, "d, of u8, = 1 where x < y, else 0")
QV_VECTOR(VLE, "vle", "MXX", ANY, QB_LE, "d, of u8, = 1 where x <= y, else 0")
QV_VECTOR(VSELECT, "vselect", "DBXX", ANY, QB_SELECT, "d = x where b, of u8, is not 0, else y")
QV_VECTOR(VMOV, "vmov", "DX", ANY, QB_MAPS, "d = x, bit by bit")
QV_VECTOR(VCVT, "vcvt", "DW", PAIR, 0,
          "d, of the first type, = x of the second: integers wrap, floats round to nearest even, "
          "floats to integers go towards 0 and saturate, NaN gives 0")
QV_VECTOR(VRAMP, "vramp", "DSS", ANY, 0, "d[i] = s + t * i, for i from 0; integers wrap")
QV_VECTOR(REDUCE_ADD, "reduce.add", "RV", ANY, QB_FOLD_ADD,
          "a = the sum; of floats in the order of [the tree](#reductions); 0 of nothing")
QV_VECTOR(REDUCE_MIN, "reduce.min", "RV", ANY, QB_FOLD_MIN,
          "a = the least; of nothing the greatest of the type")
QV_VECTOR(REDUCE_MAX, "reduce.max", "RV", ANY, QB_FOLD_MAX,
          "a = the greatest; of nothing the least of the type")
QV_VECTOR(REDUCE_AND, "reduce.and", "RV", INT, QB_FOLD_AND,
          "a = all of them, and; all ones of nothing")
QV_VECTOR(REDUCE_OR, "reduce.or", "RV", INT, QB_FOLD_OR, "a = all of them, or; 0 of nothing")
QV_VECTOR(REDUCE_XOR, "reduce.xor", "RV", INT, QB_FOLD_XOR,
          "a = all of them, exclusive-or; 0 of nothing")
QV_VECTOR(SCAN_ADD, "scan.add", "DV", ANY, QB_FOLD_ADD,
          "d[i] = x[0] + ... + x[i], from left to right")
QV_VECTOR(SCAN_MIN, "scan.min", "DV", ANY, QB_FOLD_MIN, "d[i] = the least of x[0] to x[i]")
QV_VECTOR(SCAN_MAX, "scan.max", "DV", ANY, QB_FOLD_MAX, "d[i] = the greatest of x[0] to x[i]")
QV_VECTOR(WINDOW_ADD, "window.add", "DVS", ANY, QB_FOLD_ADD,
          "d[i] = x[i] + ... + x[i + s - 1], from left to right; s from 1 on")
QV_VECTOR(WINDOW_MIN, "window.min", "DVS", ANY, QB_FOLD_MIN,
          "d[i] = the least of x[i] to x[i + s - 1]")
QV_VECTOR(WINDOW_MAX, "window.max", "DVS", ANY, QB_FOLD_MAX,
          "d[i] = the greatest of x[i] to x[i + s - 1]")
QV_VECTOR(GATHER, "gather", "DGI", INDEX, 0,
          "d[i] = x[y[i]]; y is of the second type, u32 or u64, x all elements from the start of "
          "its range on")
QV_VECTOR(SCATTER, "scatter", "HVI", INDEX, 0,
          "d[y[i]] = x[i], one after the other; d is all elements from the start of its range on")
QV_VECTOR(TALLY, "tally", "HI", COUNT, 0,
          "d[y[i]] += 1, one after the other; integers only; d as with scatter")
/* clang-format on */

#undef QV_SCALAR
#undef QV_VECTOR
