/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program: what assembly text becomes, what is verified, what the machine runs, and what a log
 * holds of it. Nothing in it is believed before qv_verify() has looked at it.
 */
#ifndef QV_PROGRAM_H
#define QV_PROGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "vm/instruction.h"

enum {
    QV_MAX_NAME = 64,          /* bytes of a name: letters, digits, _ */
    QV_MAX_FUNCTION_NAME = 75, /* with @ and the age of an old definition */
    QV_MAX_WORLD = 1000000000,
    QV_MAX_TEXT = 4 << 20, /* bytes of a program */
    QV_MAX_PAGES = 4096,
    QV_MAX_FUNCTIONS = 4096,
    QV_MAX_NAMES = 1024,    /* that are emitted */
    QV_MAX_LABELS = 4096,   /* of a function */
    QV_MAX_WORDS = 1 << 24, /* of a function */
    QV_MAX_STACK = 1 << 26, /* registers */
    QV_MAX_DEPTH = 1 << 24, /* calls */
    QV_MAX_EMITS = 65536,   /* values in one tick */
    QV_MAX_PARENTS = 1024,  /* of a derived page */
    QV_DEFAULT_STACK = 65536,
    QV_DEFAULT_DEPTH = 8192,
};
#define QV_DEFAULT_MEMORY ((uint64_t)64 << 20)
#define QV_DEFAULT_FUEL   ((uint64_t)10000000000)
#define QV_MAX_FUEL       ((uint64_t)1 << 62)
#define QV_MAX_COUNT      ((uint64_t)1 << 44) /* elements of a page, of a block or a window */

/* How a derived page depends on a page above it. */
struct qv_parent {
    uint32_t page;
    uint32_t access;        /* enum qallow_access, include/qallow/graph.h */
    uint64_t unit;          /* elements of a block; 1 if elementwise or a window; whole: 0 */
    uint64_t before, after; /* elements of a window beside the one in the middle */
};

struct qv_page {
    char name[QV_MAX_NAME + 1];
    unsigned type;  /* enum qb_type */
    int is_input;   /* fed from outside; the program does not write to it */
    int is_derived; /* computed by a function; the program does not write to it */
    uint64_t count; /* elements; of an input, or a page derived from one not as a whole: at most */
    uint8_t *initial; /* the first bytes; the rest is zeros */
    size_t initial_size, initial_capacity;
    uint32_t function, line; /* of a derived page; where it is declared, 0: unknown */
    struct qv_parent *parents;
    size_t parent_count, parent_capacity;
};
static inline uint64_t qv_page_bytes(const struct qv_page *page)
{
    return page->count << qb_type_shift(page->type);
}
/* Whether it has always as many elements as declared. */
static inline int qv_page_is_fixed(const struct qv_page *page)
{
    if (page->is_input)
        return 0;
    for (size_t i = 0; page->is_derived && i < page->parent_count; i++)
        if (page->parents[i].unit)
            return 0;
    return 1;
}

/* A page as a function of derived pages calls it: the first is computed, the others are read. */
struct qv_formal {
    char name[QV_MAX_NAME + 1];
    unsigned type;
};

struct qv_label {
    char name[QV_MAX_NAME + 1];
    uint32_t word;
};

struct qv_function {
    char name[QV_MAX_FUNCTION_NAME + 1];
    uint32_t arguments, registers;
    uint32_t age; /* the world in which it was defined (vm/world.h) */
    uint64_t *words;
    uint32_t *lines; /* of the source, for each word; 0: unknown */
    size_t word_count, word_capacity, line_capacity;
    struct qv_label *labels;
    size_t label_count, label_capacity;
    int is_closed; /* sees no pages but its formals, and does nothing but compute */
    struct qv_formal *formals;
    size_t formal_count, formal_capacity;
};

struct qv_name {
    char text[QV_MAX_NAME + 1];
};

struct qv_program {
    uint64_t memory;    /* bytes of all pages and the stack, at most */
    uint64_t fuel;      /* of one tick */
    uint64_t node_fuel; /* of one call of a derived page's function; 0: as much as a tick */
    uint32_t stack, depth;
    struct qv_page *pages;
    size_t page_count, page_capacity;
    struct qv_function *functions;
    size_t function_count, function_capacity;
    size_t retired_count; /* the last ones: old definitions, which no call leads to */
    uint32_t world;
    size_t source_length; /* of the text without what the machine keeps in it */
    struct qv_name *names;
    size_t name_count, name_capacity;
};

/* Functions that calls lead to. */
static inline size_t qv_current_count(const struct qv_program *program)
{
    return program->function_count - program->retired_count;
}

/* Where a text is wrong. */
struct qv_source_error {
    char message[200];
    size_t line, column; /* from 1 */
    size_t length;       /* bytes that are meant, at least 1 */
    char text[160];      /* the line around the column, printable */
    size_t caret;        /* of the column in it, from 0 */
};

/* Text to a verified program, which the caller destroys. ARGUMENT: *error says what is wrong where,
 * and the detail "PATH:LINE:COLUMN: message"; NO_MEMORY. */
int qv_assemble(const char *text, size_t length, const char *path, struct qv_program **program,
                struct qv_source_error *error);
void qv_program_destroy(struct qv_program *program);

/* Whether everything in the program is as the interpreter relies on (docs/vm.md, "What is
 * verified"). SERIALIZATION with a detail that names the function and word. */
int qv_verify(const struct qv_program *program);
/* Why a derived page is not as it must be, or NULL: `why` then says it. */
const char *qv_check_node(const struct qv_program *program, size_t page, char why[400]);
/* Elements of a derived page for one unit of its first parent that is not read whole; 0: they do
 * not fit together. */
uint64_t qv_node_unit(const struct qv_program *program, const struct qv_page *page);
/* Bytes of the windows that a derived page is computed from, with what lies beyond the ends. */
uint64_t qv_node_windows(const struct qv_program *program, const struct qv_page *page);
/* What a page is called in a function. */
const char *qv_page_name(const struct qv_program *program, const struct qv_function *function,
                         uint64_t page);
/* What a machine of this program takes: pages, stack and frames, and the same for nodes. */
uint64_t qv_program_memory(const struct qv_program *program);

/* One instruction as text, without its line end, for `size` bytes; returns its words. */
unsigned qv_disassemble_one(const struct qv_program *program, const struct qv_function *function,
                            uint32_t word, char *text, size_t size);
/* The whole program as text that assembles to the same program, piece by piece. */
int qv_disassemble(const struct qv_program *program,
                   int (*write)(void *context, const char *text, size_t length), void *context);
/* What stands below .world: the ages of the functions of `program`, and those functions of `from`
 * for which `keep` is 1, as old definitions. Nothing in world 0. */
int qv_disassemble_world(const struct qv_program *program, const struct qv_program *from,
                         const uint8_t *keep,
                         int (*write)(void *context, const char *text, size_t length),
                         void *context);
/* The reference of the instructions in Markdown, as in docs/vm.md. */
int qv_reference(int (*write)(void *context, const char *text, size_t length), void *context);

/* Index by name, or -1. */
int qv_find_function(const struct qv_program *program, const char *name);
int qv_find_page(const struct qv_program *program, const char *name);

/* Of a function, old or not, the one that calls by its name lead to. */
uint32_t qv_current_of(const struct qv_program *program, uint32_t function);

/* A float as text, whatever the locale; 1 if all of the text is one. */
int qv_read_float(const char *text, double *value);

#endif
