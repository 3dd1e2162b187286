/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Derived pages and the functions that compute them:
 *
 *     .func NAME [ARGUMENTS] of PAGE TYPE, PAGE TYPE...
 *     .func NAME [ARGUMENTS] pure
 *     .node NAME TYPE COUNT FUNCTION ACCESS PAGE [N [N]], ACCESS PAGE...
 *
 * Parents are declared above, so there are no cycles. Functions may come later, so whether they fit
 * is looked at when all text has been read.
 */
#include <string.h>

#include "qallow/graph.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "vm/assemble_internal.h"

static int no_memory(void) { return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the program"); }

/* --- functions --- */

static int parse_formal(struct qv_parser *p)
{
    struct qv_function *f = p->function;
    struct qv_formal formal;
    struct qv_span span = (qv_skip_blanks(p), qv_next_token(p));
    int rc = qv_parse_name(p, "a name for the page", formal.name);

    if (rc == 0)
        rc = qv_parse_type(p, &formal.type);
    if (rc < 0)
        return rc;
    if (formal.name[0] == 'r' && formal.name[1] >= '0' && formal.name[1] <= '9')
        return qv_wrong(p, span, "%s looks like a register", formal.name);
    for (size_t i = 0; i < f->formal_count; i++)
        if (strcmp(f->formals[i].name, formal.name) == 0)
            return qv_wrong(p, span, "there is a page %s already", formal.name);
    if (f->formal_count == QV_MAX_PARENTS + 1)
        return qv_wrong(p, span, "more than %d parents", QV_MAX_PARENTS);
    if (QR_GROW(f->formals, f->formal_count, f->formal_capacity) < 0)
        return no_memory();
    f->formals[f->formal_count++] = formal;
    return 0;
}

int qv_parse_formals(struct qv_parser *p)
{
    const char *from = (qv_skip_blanks(p), p->at);
    struct qv_span word = qv_word_here(p, 0);

    p->function->is_closed = qv_span_is(word, "of") || qv_span_is(word, "pure");
    if (!p->function->is_closed)
        p->at = from;
    if (!qv_span_is(word, "of"))
        return 0;
    int rc = parse_formal(p);
    while (rc == 0 && qv_accept(p, ','))
        rc = parse_formal(p);
    return rc;
}

/* --- pages --- */

static const char *const accesses[] = {"whole", "elementwise", "blockwise", "window"};
_Static_assert(QALLOW_WHOLE == 0 && QALLOW_ELEMENTWISE == 1 && QALLOW_BLOCKWISE == 2 &&
                   QALLOW_WINDOW == 3,
               "as in include/qallow/graph.h");

static int parse_access(struct qv_parser *p, uint32_t *access)
{
    struct qv_span word = (qv_skip_blanks(p), qv_word_here(p, 0));

    for (*access = 0; *access < 4; ++*access)
        if (qv_span_is(word, accesses[*access]))
            return 0;
    return qv_wrong(p, word.length ? word : qv_next_token(p),
                    "expected how the parent is read: whole, elementwise, blockwise or window");
}

static int parse_distances(struct qv_parser *p, struct qv_parent *parent)
{
    struct qv_span span = (qv_skip_blanks(p), qv_next_token(p));
    int rc = 0;

    parent->unit = parent->access != QALLOW_WHOLE;
    if (parent->access == QALLOW_BLOCKWISE) {
        rc = qv_parse_size(p, "the elements of a block", QV_MAX_COUNT, &parent->unit);
        if (rc == 0 && parent->unit == 0)
            rc = qv_wrong(p, span, "a block has at least one element");
    } else if (parent->access == QALLOW_WINDOW) {
        rc = qv_parse_size(p, "the elements before one", QV_MAX_COUNT, &parent->before);
        if (rc == 0)
            rc = qv_parse_size(p, "the elements after one", QV_MAX_COUNT, &parent->after);
    }
    return rc;
}

static int parse_parent(struct qv_parser *p, struct qv_page *page)
{
    struct qv_parent parent = {.page = 0};
    char name[QV_MAX_NAME + 1];
    int rc = parse_access(p, &parent.access);

    if (rc < 0)
        return rc;
    struct qv_span span = (qv_skip_blanks(p), qv_next_token(p));
    rc = qv_parse_name(p, "the name of a page", name);
    int found = rc < 0 ? -1 : qv_find_page(p->program, name);
    if (rc == 0 && found < 0)
        rc = qv_wrong(p, span, "there is no page %s above", name);
    for (size_t i = 0; rc == 0 && i < page->parent_count; i++)
        if (page->parents[i].page == (uint32_t)found)
            rc = qv_wrong(p, span, "%s is a parent twice", name);
    if (rc == 0 && page->parent_count == QV_MAX_PARENTS)
        rc = qv_wrong(p, span, "more than %d parents", QV_MAX_PARENTS);
    parent.page = (uint32_t)found;
    if (rc == 0)
        rc = parse_distances(p, &parent);
    if (rc == 0 && QR_GROW(page->parents, page->parent_count, page->parent_capacity) < 0)
        rc = no_memory();
    if (rc == 0)
        page->parents[page->parent_count++] = parent;
    return rc;
}

int qv_parse_node(struct qv_parser *p)
{
    struct qv_page page = {.is_derived = 1, .line = (uint32_t)p->line};
    char name[QV_MAX_NAME + 1];
    int rc = qv_parse_page(p, &page), found = -1;

    if (rc < 0)
        return rc;
    struct qv_span span = (qv_skip_blanks(p), qv_next_token(p));
    rc = qv_parse_name(p, "the name of a function", name);
    if (rc == 0)
        found = qv_find_function(p->program, name);
    if (rc == 0 && found < 0)
        rc = qv_wrong(p, span, "there is no function %s", name);
    page.function = (uint32_t)found;
    if (rc == 0)
        rc = parse_parent(p, &page);
    while (rc == 0 && qv_accept(p, ','))
        rc = parse_parent(p, &page);
    if (rc == 0)
        rc = qv_add_page(p, &page);
    if (rc < 0)
        qr_free(page.parents);
    return rc;
}

/* --- when everything is there --- */

/* Puts the parser at the beginning of a line, so that a message can point into it. */
static void go_to(struct qv_parser *p, const char *text, size_t length, size_t line)
{
    const char *end = text + length, *at = text;

    for (p->line = 1; p->line < line; p->line++)
        at = (const char *)memchr(at, '\n', (size_t)(end - at)) + 1;
    const char *newline = memchr(at, '\n', (size_t)(end - at));
    p->line_start = p->at = at;
    p->end = newline ? newline : end;
    p->text_end = end;
}

/* Where the line names the page: behind its directive, labels may come first. */
static struct qv_span find_name(struct qv_parser *p, const char *name)
{
    while (!qv_at_end(p) && !qv_span_is(qv_word_here(p, 1), ".node"))
        p->at += p->at < p->end;
    qv_skip_blanks(p);
    return (struct qv_span){p->at, strlen(name)};
}

int qv_check_nodes(struct qv_parser *p, const char *text, size_t length)
{
    char why[400];

    for (size_t i = 0; i < p->program->page_count; i++) {
        const struct qv_page *page = &p->program->pages[i];
        if (!page->is_derived || !qv_check_node(p->program, i, why))
            continue;
        go_to(p, text, length, page->line);
        return qv_wrong(p, find_name(p, page->name), "%s", why);
    }
    return 0;
}
