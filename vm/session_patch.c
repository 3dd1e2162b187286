/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Patching a machine: another text becomes its program between two ticks (vm/world.h says what that
 * means). A machine of the new program is made beside the old one, given its pages and its state,
 * function by function under their new numbers, and takes its place; so whatever is wrong with the
 * new text leaves everything as it was.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "vm/session_internal.h"
#include "vm/state.h"
#include "vm/world.h"

struct patch {
    const char *text, *path; /* the new one */
    const struct qv_program *old;
    struct qv_program *fresh;    /* what the new text says */
    uint8_t *in_progress, *keep; /* old functions; those that are kept as old definitions */
    struct qv_patched *result;
};

__attribute__((format(printf, 2, 3))) static int refuse(const struct patch *p, const char *format,
                                                        ...)
{
    char what[300];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    return qr_fail(QALLOW_E_ARGUMENT, "%s: %s", qr_quotez(p->path), what);
}

/* --- what the new text says --- */

static int check_pages(const struct patch *p)
{
    for (size_t i = 0; i < p->old->page_count; i++) {
        const struct qv_page *is = &p->old->pages[i];
        int found = qv_find_page(p->fresh, is->name);
        const struct qv_page *shall = found < 0 ? NULL : &p->fresh->pages[found];
        if (!shall || shall->type != is->type || shall->count != is->count ||
            shall->is_input != is->is_input || shall->is_derived != is->is_derived)
            return refuse(p, "the machine has %s %s %s %llu: the patch must declare it so",
                          is->is_input     ? ".input"
                          : is->is_derived ? ".node"
                                           : ".page",
                          is->name, qv_type_names[is->type], (unsigned long long)is->count);
    }
    return 0;
}

/* Functions that are as they were keep their age. */
static void give_ages(const struct patch *p)
{
    p->fresh->world = p->result->world = p->old->world + 1;
    for (size_t i = 0; i < qv_current_count(p->fresh); i++) {
        struct qv_function *f = &p->fresh->functions[i];
        int before = qv_find_function(p->old, f->name);
        int is_same =
            before >= 0 && qv_same_function(p->old, &p->old->functions[before], p->fresh, f);
        f->age = is_same ? p->old->functions[before].age : p->fresh->world;
        p->result->defined += !is_same;
    }
}

/* An old definition goes on calling what it called. */
static int check_calls(const struct patch *p, const struct qv_function *f)
{
    for (uint32_t word = 0; word < f->word_count;) {
        unsigned op = qv_word_op(f->words[word]);
        if (op == QV_CALL) {
            const struct qv_function *callee = &p->old->functions[qv_word_imm(f->words[word])];
            int now = qv_find_function(p->fresh, callee->name);
            if (now < 0)
                return refuse(p, "%s is missing: %s, which is in progress, calls it", callee->name,
                              f->name);
            if (p->fresh->functions[now].arguments != callee->arguments)
                return refuse(
                    p, "%s takes %u arguments: %s, which is in progress, calls it with %u",
                    callee->name, p->fresh->functions[now].arguments, f->name, callee->arguments);
        }
        word += qv_op_words(op);
    }
    return 0;
}

/* Of the functions in progress those stay as old definitions that are not the same any more. */
static int choose_kept(const struct patch *p)
{
    size_t current = qv_current_count(p->old);

    for (size_t i = 0; i < p->old->function_count; i++) {
        const struct qv_function *f = &p->old->functions[i];
        const char *name = p->old->functions[qv_current_of(p->old, (uint32_t)i)].name;
        int now = qv_find_function(p->fresh, name);
        p->result->gone += now < 0 && i < current;
        if (!p->in_progress[i] ||
            (i < current && now >= 0 && p->fresh->functions[now].age != p->fresh->world))
            continue;
        if (now < 0)
            return refuse(p, "%s is missing: it is in progress", name);
        int rc = check_calls(p, f);
        if (rc < 0)
            return rc;
        p->keep[i] = 1;
        p->result->kept++;
    }
    return 0;
}

static int count_stale(const struct patch *p)
{
    size_t count = p->fresh->function_count;
    uint32_t *ages = qr_malloc(count * sizeof *ages);
    int rc = ages ? qv_reached_ages(p->fresh, ages)
                  : qr_fail(QALLOW_E_NO_MEMORY, "no memory for the functions' ages");

    for (size_t i = 0; rc == 0 && i < qv_current_count(p->fresh); i++)
        p->result->stale +=
            ages[i] == p->fresh->world && p->fresh->functions[i].age != p->fresh->world;
    qr_free(ages);
    return rc;
}

static int judge(struct patch *p)
{
    int rc = check_pages(p);

    if (rc == 0 && p->old->world == QV_MAX_WORLD)
        rc = refuse(p, "the machine has been patched %d times: no more", QV_MAX_WORLD);
    if (rc < 0)
        return rc;
    give_ages(p);
    rc = choose_kept(p);
    return rc < 0 ? rc : count_stale(p);
}

/* --- the machine of the new program --- */

/* Which function of the new program is meant by each of the old one, as far as frames go. */
static void find_numbers(const struct patch *p, const struct qv_program *program, uint32_t *numbers)
{
    char name[QV_MAX_FUNCTION_NAME + 1];

    for (size_t i = 0; i < p->old->function_count; i++) {
        const struct qv_function *f = &p->old->functions[i];
        snprintf(name, sizeof name, "%s", f->name);
        if (p->keep[i])
            snprintf(name, sizeof name, "%.*s@%u", (int)strcspn(f->name, "@"), f->name, f->age);
        int now = qv_find_function(program, name);
        numbers[i] = now < 0 ? UINT32_MAX : (uint32_t)now;
    }
}

static int carry_state(const struct patch *p, const struct qv_machine *from, struct qv_machine *to)
{
    size_t length = qv_state_size(from);
    uint8_t *bytes = qr_malloc(length);
    uint32_t *numbers = qr_malloc(p->old->function_count * sizeof *numbers);
    int rc = bytes && numbers ? 0 : qr_fail(QALLOW_E_NO_MEMORY, "no memory for the state");

    if (rc == 0) {
        find_numbers(p, to->program, numbers);
        qv_state_encode(from, bytes);
        qv_state_renumber(bytes, numbers);
        rc = qv_state_decode(to, bytes, length);
        if (rc == QALLOW_E_SERIALIZATION)
            rc = refuse(p, "the calls in progress do not fit into .stack %u and .depth %u",
                        to->program->stack, to->program->depth);
    }
    qr_free(bytes);
    qr_free(numbers);
    return rc;
}

static void carry_pages(const struct qv_machine *from, struct qv_machine *to)
{
    for (size_t i = 0; i < from->program->page_count; i++) {
        const struct qv_memory *old = &from->pages[i];
        int number = qv_find_page(to->program, from->program->pages[i].name);
        struct qv_memory *page = &to->pages[number];
        if (old->size)
            memcpy(page->bytes, old->bytes, old->size);
        page->size = old->size;
        page->count = old->count;
        memcpy(page->dirty, old->dirty, old->size / QV_BLOCK + 1);
        to->touched[number] = from->touched[i];
    }
}

/* Whether a derived page is declared as it was. */
static int is_same_node(const struct qv_program *old, const struct qv_page *is,
                        const struct qv_program *program, const struct qv_page *page)
{
    if (!is->is_derived || is->parent_count != page->parent_count ||
        strcmp(old->functions[is->function].name, program->functions[page->function].name) != 0)
        return 0;
    for (size_t i = 0; i < is->parent_count; i++) {
        const struct qv_parent *a = &is->parents[i], *b = &page->parents[i];
        if (strcmp(old->pages[a->page].name, program->pages[b->page].name) != 0 ||
            a->access != b->access || a->unit != b->unit || a->before != b->before ||
            a->after != b->after)
            return 0;
    }
    return 1;
}

/* Derived pages are as they are, except those whose declaration is another one, or whose function
 * is, or one that it reaches by calls. What those were they are not any more; the rest follows from
 * what changes of them. */
static int carry_nodes(const struct patch *p, struct qv_session *next)
{
    const struct qv_program *program = next->program;
    uint32_t *ages = qr_malloc(program->function_count * sizeof *ages);
    uint8_t *is_stale = qr_calloc(program->page_count + 1, 1);
    int rc = ages && is_stale ? qv_reached_ages(program, ages)
                              : qr_fail(QALLOW_E_NO_MEMORY, "no memory for derived pages");

    for (size_t i = 0; rc == 0 && i < program->page_count; i++) {
        const struct qv_page *page = &program->pages[i];
        int before = qv_find_page(p->old, page->name);
        is_stale[i] =
            page->is_derived && (before < 0 || ages[page->function] == program->world ||
                                 !is_same_node(p->old, &p->old->pages[before], program, page));
    }
    if (rc == 0)
        rc = qv_nodes_adopt(next->nodes, is_stale);
    qr_free(ages);
    qr_free(is_stale);
    return rc;
}

int qv_carry_watch(const struct qv_machine *from, struct qv_machine *to)
{
    to->watch = from->watch;
    to->watch.counts = NULL;
    if (from->watch.counts && qv_machine_count(to, 1) < 0)
        return QALLOW_E_NO_MEMORY;
    for (size_t i = 0; to->watch.counts && i < from->program->function_count; i++) {
        int now = qv_find_function(to->program, from->program->functions[i].name);
        if (now >= 0)
            to->watch.counts[now] = from->watch.counts[i];
    }
    to->interrupted = from->interrupted;
    to->interrupted_context = from->interrupted_context;
    return 0;
}

/* A session of the new text, without a log, in the state of the present one. */
static int make_next(const struct qv_session *s, const struct patch *p, struct qv_session **next)
{
    struct qv_session_options options = {
        .threads = s->threads, .fuel = s->set_fuel, .max_memory = s->max_memory};
    char *text = NULL;
    size_t length = 0;
    int rc =
        qv_world_text(p->text, p->fresh->source_length, p->fresh, p->old, p->keep, &text, &length);

    *next = NULL;
    if (rc == 0)
        rc = qv_session_new(text, length, p->path, &options, next);
    qr_free(text);
    if (rc == 0)
        rc = carry_state(p, s->machine, (*next)->machine);
    if (rc == 0) {
        carry_pages(s->machine, (*next)->machine);
        rc = qv_carry_watch(s->machine, (*next)->machine);
    }
    if (rc == 0)
        rc = carry_nodes(p, *next);
    if (rc < 0) {
        qv_session_close(*next);
        *next = NULL;
        return rc;
    }
    for (size_t i = 0; i < p->old->page_count; i++)
        (*next)->page_ids[qv_find_page((*next)->program, p->old->pages[i].name)] = s->page_ids[i];
    return 0;
}

void qv_exchange(struct qv_session *a, struct qv_session *b)
{
    struct qv_session was = *a;

    a->program = b->program;
    a->machine = b->machine;
    a->nodes = b->nodes;
    a->text = b->text;
    a->text_length = b->text_length;
    a->page_ids = b->page_ids;
    b->program = was.program;
    b->machine = was.machine;
    b->nodes = was.nodes;
    b->text = was.text;
    b->text_length = was.text_length;
    b->page_ids = was.page_ids;
}

static int take_over(struct qv_session *s, const struct patch *p)
{
    struct qv_session *next = NULL;
    struct qv_computed computed;
    int rc = make_next(s, p, &next);

    if (rc < 0)
        return rc;
    qv_exchange(s, next);
    rc = qv_session_derive(s, 0);
    qv_nodes_computed(s->nodes, &computed);
    p->result->computed = computed.computed;
    if (rc == 0 && s->store)
        rc = qv_record_patch(s, &s->epoch);
    else if (rc == 0)
        qv_clear_dirty(s->machine);
    if (rc < 0)
        qv_exchange(s, next);
    qv_session_close(next);
    s->was_patched = rc == 0;
    p->result->epoch = s->epoch;
    return rc;
}

int qv_session_patch(struct qv_session *session, const char *text, size_t length, const char *path,
                     struct qv_source_error *error, struct qv_patched *patched)
{
    struct patch p = {.text = text, .path = path, .old = session->program, .result = patched};
    size_t count = session->program->function_count;

    memset(patched, 0, sizeof *patched);
    int rc = qv_assemble(text, length, path, &p.fresh, error);
    if (rc < 0)
        return rc;
    p.in_progress = qr_calloc(count, 1);
    p.keep = qr_calloc(count, 1);
    if (!p.in_progress || !p.keep)
        rc = qr_fail(QALLOW_E_NO_MEMORY, "no memory for the patch");
    if (rc == 0) {
        qv_in_progress(session->machine, p.in_progress);
        rc = judge(&p);
    }
    if (rc == 0)
        rc = take_over(session, &p);
    qr_free(p.in_progress);
    qr_free(p.keep);
    qv_program_destroy(p.fresh);
    return rc;
}

/* --- old definitions --- */

/* Pointers into the code stay what they are: it is not moved. */
static void forget(struct qv_session *s, size_t i)
{
    struct qv_program *p = s->program;
    struct qv_function *f = &p->functions[i];
    struct qv_entry *entry = &s->machine->entries[i];
    size_t behind = p->function_count - i - 1;

    qr_free(f->words);
    qr_free(f->lines);
    qr_free(f->labels);
    qr_free(f->formals);
    memmove(f, f + 1, behind * sizeof *f);
    memmove(entry, entry + 1, behind * sizeof *entry);
    if (s->machine->watch.counts)
        memmove(s->machine->watch.counts + i, s->machine->watch.counts + i + 1,
                behind * sizeof *s->machine->watch.counts);
    p->function_count--;
    p->retired_count--;
}

static int drop(struct qv_session *s, uint8_t *flags)
{
    struct qv_program *p = s->program;
    size_t dropped = 0, length = 0;
    char *text = NULL;

    qv_in_progress(s->machine, flags);
    for (size_t i = p->function_count; i-- > qv_current_count(p);)
        if (!flags[i]) {
            forget(s, i);
            dropped++;
        }
    if (dropped == 0)
        return 0;
    memset(flags, 0, p->function_count);
    memset(flags + qv_current_count(p), 1, p->retired_count);
    int rc = qv_world_text(s->text, p->source_length, p, p, flags, &text, &length);
    if (rc < 0)
        return rc;
    qr_free(s->text);
    s->text = text;
    s->text_length = length;
    s->text_is_new = 1;
    return 0;
}

int qv_drop_retired(struct qv_session *session)
{
    if (session->program->retired_count == 0)
        return 0;
    uint8_t *flags = qr_malloc(session->program->function_count);
    if (!flags)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for which functions are in progress");
    int rc = drop(session, flags);
    qr_free(flags);
    return rc;
}
