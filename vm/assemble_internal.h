/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the assembler share: a cursor over the text, and what has been found so far. */
#ifndef QV_ASSEMBLE_INTERNAL_H
#define QV_ASSEMBLE_INTERNAL_H

#include "vm/program.h"

struct qv_number {
    uint64_t bits; /* of the integer or of the f64 */
    int is_float, is_negative, is_hex;
};

struct qv_constant {
    char name[QV_MAX_NAME + 1];
    struct qv_number value;
};

/* A jump whose label was not known yet. */
struct qv_fixup {
    char label[QV_MAX_NAME + 1];
    uint32_t word;
    size_t line;
    const char *line_start, *at;
};

struct qv_parser {
    const char *at, *end; /* of the line that is read: its end is before its line end */
    const char *line_start, *text, *text_end;
    size_t line;
    struct qv_program *program;
    struct qv_function *function; /* that is being read, or NULL */
    struct qv_constant *constants;
    size_t constant_count, constant_capacity;
    struct qv_fixup *fixups;
    size_t fixup_count, fixup_capacity;
    struct qv_source_error *error;
    int below_world; /* .world has been seen in this pass */
};

/* A piece of text where something is said to be wrong. */
struct qv_span {
    const char *at;
    size_t length;
};

/* Fills in the error and returns QALLOW_E_ARGUMENT. */
int qv_wrong(struct qv_parser *p, struct qv_span span, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* --- tokens; blanks before them are skipped --- */

void qv_skip_blanks(struct qv_parser *p);
/* The line is over, or only a comment is left. */
int qv_at_end(struct qv_parser *p);
/* 1 and behind it if the next byte is `c`. */
int qv_accept(struct qv_parser *p, char c);
/* The next letters, digits, _ and, if wanted, points; its length may be 0. */
struct qv_span qv_word_here(struct qv_parser *p, int with_points);
/* What stands at the cursor, to point at. */
struct qv_span qv_next_token(struct qv_parser *p);
/* A name of at most QV_MAX_NAME bytes that does not begin with a digit; `what` is for the message.
 */
int qv_parse_name(struct qv_parser *p, const char *what, char name[QV_MAX_NAME + 1]);
int qv_span_is(struct qv_span span, const char *text);
/* A number, character or constant. */
int qv_parse_number(struct qv_parser *p, struct qv_number *number);
/* An integer from least to greatest. */
int qv_parse_integer(struct qv_parser *p, const char *what, int64_t least, int64_t greatest,
                     int64_t *value);
/* An integer that may end with K, M, G or T, up to greatest. */
int qv_parse_size(struct qv_parser *p, const char *what, uint64_t greatest, uint64_t *value);
int qv_parse_type(struct qv_parser *p, unsigned *type);

/* --- derived pages (assemble_node.c) --- */

/* What follows the name and arguments of a function: `pure`, or `of` and pages. */
int qv_parse_formals(struct qv_parser *p);
/* .node: behind the directive. */
int qv_parse_node(struct qv_parser *p);
/* When everything is there: do they fit to their functions and parents? */
int qv_check_nodes(struct qv_parser *p, const char *text, size_t length);
/* A name, type and number of elements that no page has yet. */
int qv_parse_page(struct qv_parser *p, struct qv_page *page);
int qv_add_page(struct qv_parser *p, const struct qv_page *page);

/* --- code --- */

/* An instruction, whose mnemonic begins at the cursor. */
int qv_parse_instruction(struct qv_parser *p);
/* Puts the distances into the jumps of the function that ends. */
int qv_resolve_labels(struct qv_parser *p);

#endif
