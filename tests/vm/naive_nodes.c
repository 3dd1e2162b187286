/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Derived pages, naively: all of them, from scratch, each unit by a call of its own; what has
 * changed since the last time does not matter. So a function that the machine calls for a part of a
 * page, for several parts or for all of it must give what it gives of one unit after the other.
 */
#include <stdlib.h>
#include <string.h>

#include "naive.h"

static uint64_t element(unsigned type)
{
    static const uint64_t bytes[] = {1, 1, 2, 2, 4, 4, 8, 8, 4, 8};
    return bytes[type];
}

/* The parent whose units are those of the page; NULL: all are read whole. */
static const struct qv_parent *counting(const struct qv_page *page)
{
    for (size_t i = 0; i < page->parent_count; i++)
        if (page->parents[i].access != 0)
            return &page->parents[i];
    return NULL;
}

/* Bytes of the page for a unit of that parent, and how many there are now. */
static uint64_t unit_of(const struct naive *n, const struct qv_page *page, uint64_t *size)
{
    const struct qv_parent *parent = counting(page);
    const struct qv_page *from = &n->program->pages[parent->page];
    uint64_t own = element(page->type), others = element(from->type);
    uint64_t present = n->sizes[parent->page] / others;

    if (page->count * own == from->count * others) { /* as long as the parent */
        *size = n->sizes[parent->page];
        return parent->unit * others;
    }
    uint64_t units = (from->count + parent->unit - 1) / parent->unit;
    *size = (present + parent->unit - 1) / parent->unit * (page->count / units) * own;
    return page->count / units * own;
}

/* What a function sees of a parent when it computes unit `at`. */
static uint8_t *show(const struct naive *n, const struct qv_parent *parent, uint64_t at,
                     uint64_t *size)
{
    uint64_t width = element(n->program->pages[parent->page].type), all = n->sizes[parent->page];
    uint64_t from = at * parent->unit * width, to = from + parent->unit * width;
    uint8_t *bytes = calloc(1, all + (parent->before + parent->after + 2) * width);

    if (parent->access != 3) { /* of blocks, what there is of them */
        from = parent->access == 0 ? 0 : from < all ? from : all;
        to = parent->access == 0 || to > all ? all : to;
        *size = to - from;
        memcpy(bytes, n->bytes[parent->page] + from, *size);
        return bytes;
    }
    *size = (parent->before + 1 + parent->after) * width;
    for (uint64_t i = 0; i < *size; i++) /* zeros where there is nothing */
        if (from + i >= parent->before * width && from + i - parent->before * width < all)
            bytes[i] = n->bytes[parent->page][from + i - parent->before * width];
    return bytes;
}

/* Calls the function for `length` bytes from `offset`, which are unit `at`. */
static enum naive_stop call(struct naive *n, uint32_t number, uint64_t at, uint64_t offset,
                            uint64_t length, uint64_t fuel, struct naive_derived *result)
{
    const struct qv_page *page = &n->program->pages[number];
    const struct qv_function *f = &n->program->functions[page->function];
    uint64_t arguments[2] = {offset / element(page->type),
                             result->sizes[number] / element(page->type)};
    struct naive one = *n;
    enum naive_stop stop = NAIVE_FUEL;

    one.sizes = calloc(1 + page->parent_count, sizeof *one.sizes);
    one.bytes = calloc(1 + page->parent_count, sizeof *one.bytes);
    one.bytes[0] = result->bytes[number] + offset;
    one.sizes[0] = length;
    for (size_t i = 0; i < page->parent_count; i++)
        one.bytes[1 + i] = show(n, &page->parents[i], at, &one.sizes[1 + i]);
    one.stack = calloc(n->program->stack, 8);
    one.calls = calloc(n->program->depth, sizeof *one.calls);
    for (uint32_t i = 0; i < f->arguments; i++)
        one.stack[i] = arguments[i];
    one.depth = one.base = 0;
    one.function = page->function;
    one.word = 0;
    one.fuel = fuel;
    if (fuel >= f->word_count)
        stop = naive_tick(&one, fuel - f->word_count);
    result->fuel[number] = one.fuel;
    result->function = one.function;
    result->word = one.word;
    for (size_t i = 0; i < page->parent_count; i++)
        free(one.bytes[1 + i]);
    free(one.sizes);
    free(one.bytes);
    free(one.stack);
    free(one.calls);
    return stop;
}

static enum naive_stop compute(struct naive *n, uint32_t number, uint64_t fuel,
                               struct naive_derived *result)
{
    const struct qv_page *page = &n->program->pages[number];
    uint64_t size = qv_page_bytes(page), unit = size;
    enum naive_stop stop = NAIVE_HALT;
    int is_whole = !counting(page);

    if (!is_whole)
        unit = unit_of(n, page, &size);
    result->sizes[number] = size;
    memset(result->bytes[number], 0, size);
    for (uint64_t at = 0; stop == NAIVE_HALT && (at * unit < size || (is_whole && !at)); at++) {
        uint64_t left = size - at * unit;
        stop = call(n, number, at, at * unit, left < unit ? left : unit, fuel, result);
    }
    return stop;
}

/* Of each page: 0 of what is not derived; otherwise above all parents, which come before. */
static unsigned *levels_of(const struct qv_program *program)
{
    unsigned *levels = calloc(program->page_count + 1, sizeof *levels);

    for (size_t p = 0; p < program->page_count; p++)
        for (size_t i = 0; i < program->pages[p].parent_count; i++) {
            unsigned above = levels[program->pages[p].parents[i].page];
            levels[p] = above >= levels[p] ? above + 1 : levels[p];
        }
    return levels;
}

enum naive_stop naive_derive(struct naive *n, uint64_t fuel, struct naive_derived *result)
{
    const struct qv_program *program = n->program;
    enum naive_stop stop = NAIVE_HALT;
    struct naive next = *n;
    unsigned *levels = levels_of(program);

    memcpy(result->sizes, n->sizes, program->page_count * sizeof *n->sizes);
    next.bytes = calloc(program->page_count + 1, sizeof *next.bytes);
    for (size_t p = 0; p < program->page_count; p++) {
        int is_derived = program->pages[p].is_derived;
        result->bytes[p] = is_derived ? calloc(1, qv_page_bytes(&program->pages[p]) + 1) : NULL;
        next.bytes[p] = is_derived ? result->bytes[p] : n->bytes[p];
    }
    next.sizes = result->sizes;
    for (unsigned level = 1; stop == NAIVE_HALT && level <= program->page_count; level++)
        for (uint32_t p = 0; stop == NAIVE_HALT && p < program->page_count; p++)
            if (levels[p] == level) {
                result->page = p;
                stop = compute(&next, p, fuel, result);
            }
    for (size_t p = 0; p < program->page_count; p++)
        if (program->pages[p].is_derived) {
            if (stop == NAIVE_HALT) {
                n->sizes[p] = result->sizes[p];
                memcpy(n->bytes[p], result->bytes[p], n->sizes[p]);
            }
            free(result->bytes[p]);
        }
    free(next.bytes);
    free(levels);
    return stop;
}

void naive_derived_create(const struct qv_program *program, struct naive_derived *result)
{
    size_t count = program->page_count + 1;

    *result = (struct naive_derived){.bytes = calloc(count, sizeof *result->bytes),
                                     .sizes = calloc(count, sizeof *result->sizes),
                                     .fuel = calloc(count, sizeof *result->fuel)};
}

void naive_derived_destroy(struct naive_derived *result)
{
    free(result->bytes);
    free(result->sizes);
    free(result->fuel);
}
