/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow vm --step`: a machine under commands. Going forward, a hook stops it after so many
 * instructions. Going back, the tick begins again, from a copy of the machine that was made then,
 * or, before its first instruction, the tick before from the log; and one instruction less is run.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "interface/cmd_vm.h"
#include "runtime/error.h"

struct stepper {
    struct qi_context *context;
    struct qv_session *session;
    struct qv_machine *m;
    uint64_t done, stop_at; /* instructions of this tick */
    uint64_t last_done;     /* of the tick that ended last */
    int in_tick, failed;
    void *memory; /* of the machine at the tick's beginning, and the rest of it */
    struct qv_machine then;
};

/* What computes derived pages is another machine: its instructions are none of the tick's. */
static int count(void *context, struct qv_machine *m, uint32_t what, uint32_t which)
{
    struct stepper *s = context;

    (void)what, (void)which;
    if (m != s->m)
        return 0;
    if (s->done == s->stop_at)
        return 1;
    s->done++;
    return 0;
}

/* The session may have got another machine. */
static int take_machine(struct stepper *s)
{
    void *memory = realloc(s->memory, qv_session_machine(s->session)->memory_size);

    s->m = qv_session_machine(s->session);
    if (!memory)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a copy of the machine");
    s->memory = memory;
    return 0;
}

static int begin_tick(struct stepper *s)
{
    int rc = qv_session_catch_up(s->session);

    if (rc == 0)
        rc = take_machine(s);
    if (rc < 0)
        return rc;
    s->then = *s->m;
    memcpy(s->memory, s->m->memory, s->m->memory_size);
    s->done = 0;
    s->in_tick = 1;
    qv_tick_begin(s->m);
    return 0;
}

/* Runs up to instruction `to` of this tick (UINT64_MAX: to its end). A tick that ends is committed.
 */
static int run_to(struct stepper *s, uint64_t to, int *ended)
{
    enum qv_stop stop;
    int rc = 0;

    *ended = 0;
    if (s->m->halted) {
        printf("halted\n");
        return 0;
    }
    if (!s->in_tick)
        rc = begin_tick(s);
    if (rc < 0)
        return rc;
    s->stop_at = to;
    rc = qv_session_continue(s->session, &stop, NULL);
    if (rc == QALLOW_E_FUNCTION || (rc < 0 && qv_is_failure(stop)))
        s->failed = 1;
    if (rc < 0)
        return rc;
    if (stop != QV_HOOKED) {
        *ended = 1;
        s->in_tick = 0;
        s->last_done = s->done;
        s->done = 0;
    }
    return 0;
}

/* As the machine was when the tick began. */
static void restart(struct stepper *s)
{
    *s->m = s->then;
    memcpy(s->m->memory, s->memory, s->m->memory_size);
    s->in_tick = 0;
}

static int show_place(struct stepper *s)
{
    char text[200];
    uint32_t function, word;

    qv_locate(s->m, s->m->pc, &function, &word);
    const struct qv_function *f = &s->m->program->functions[function];
    qv_disassemble_one(s->m->program, f, word, text, sizeof text);
    printf("tick %" PRIu64 " + %" PRIu64 "  %s, line %u: %s\n", s->m->tick, s->done, f->name,
           f->lines ? f->lines[word] : 0, text);
    return qi_stdout_flush();
}

/* `count` instructions, but not beyond the end of the tick. */
static int forward(struct stepper *s, uint64_t count)
{
    uint64_t from = s->in_tick ? s->done : 0;
    int ended = 0, rc = run_to(s, count > UINT64_MAX - from ? UINT64_MAX : from + count, &ended);

    if (rc == 0 && ended)
        rc = vm_say_emitted(s->context, s->m);
    return rc < 0 ? rc : show_place(s);
}

/* The tick before, up to its last instruction. 1: there is none. */
static int back_a_tick(struct stepper *s)
{
    uint64_t last;
    int ended = 0, rc = qv_session_back(s->session);

    if (rc == QALLOW_E_EPOCH_NOT_FOUND || !qv_session_store(s->session)) {
        printf("nothing before this that is known%s\n",
               qv_session_store(s->session) ? "" : "; --log keeps it");
        return 1;
    }
    s->in_tick = 0;
    if (rc == 0)
        rc = take_machine(s);
    if (rc == 0)
        rc = run_to(s, UINT64_MAX, &ended); /* counts its instructions */
    last = s->last_done;
    if (rc == 0)
        rc = qv_session_back(s->session);
    if (rc == 0)
        rc = take_machine(s);
    s->in_tick = 0;
    if (rc < 0)
        return rc;
    return run_to(s, last > 0 ? last - 1 : 0, &ended);
}

static int back(struct stepper *s, uint64_t count)
{
    int ended = 0, rc = 0;

    while (rc == 0 && count > 0) {
        uint64_t here = s->in_tick ? s->done : 0, step = count < here ? count : here;
        if (here == 0) {
            rc = back_a_tick(s);
            step = 1;
        } else { /* as far as this tick goes, at once */
            restart(s);
            rc = run_to(s, here - step, &ended);
        }
        count -= step;
        rc = rc ? rc : qi_signal_check();
    }
    return rc < 0 ? rc : show_place(s);
}

static int show_page(struct stepper *s, const char *name, uint64_t from)
{
    int page = qv_find_page(s->m->program, name);

    if (page < 0) {
        printf("no page %s\n", name);
        return 0;
    }
    const struct qv_memory *memory = &s->m->pages[page];
    unsigned type = s->m->program->pages[page].type, shift = qb_type_shift(type);
    for (uint64_t i = from; i < memory->count && i < from + 16; i++) {
        uint64_t bits = 0;
        double wide;
        float single;
        memcpy(&bits, memory->bytes + (i << shift), (size_t)1 << shift);
        memcpy(&wide, &bits, sizeof wide);
        memcpy(&single, &bits, sizeof single);
        unsigned unused = 64 - (8u << shift);
        if (qb_type_is_float(type))
            printf("  [%" PRIu64 "] %.17g\n", i, type == QB_F32 ? (double)single : wide);
        else if (type & 1)
            printf("  [%" PRIu64 "] %" PRId64 "\n", i, (int64_t)(bits << unused) >> unused);
        else
            printf("  [%" PRIu64 "] %" PRIu64 "\n", i, bits);
    }
    return 0;
}

/* The function that runs, with an arrow at what comes next. */
static void show_function(const struct stepper *s)
{
    char text[200];
    uint32_t function, here;

    qv_locate(s->m, s->m->pc, &function, &here);
    const struct qv_function *f = &s->m->program->functions[function];
    printf("%s:\n", f->name);
    for (uint32_t word = 0, words; word < f->word_count; word += words) {
        words = qv_disassemble_one(s->m->program, f, word, text, sizeof text);
        printf("%s %5u  %s\n", word == here ? "->" : "  ", f->lines ? f->lines[word] : word, text);
    }
}

/* Of the log, and where in it the machine is. */
static int show_epochs(const struct stepper *s)
{
    struct qallow_stats stats = QALLOW_STATS_INIT;
    struct qallow_store *store = qv_session_store(s->session);
    int rc = store ? qallow_stats_get(store, &stats) : 0;

    if (!store)
        printf("no log, so no epochs; --log keeps them\n");
    else if (rc == 0)
        printf("epochs %" PRIu64 " to %" PRIu64 "; the machine goes on from %" PRIu64 "\n",
               stats.first_epoch, stats.last_epoch, qv_session_epoch(s->session));
    return rc;
}

static void help(void)
{
    puts("s [N]          step: N instructions, not beyond the end of the tick\n"
         "b [N]          back: N instructions\n"
         "t              to the end of the tick\n"
         "r              registers, calls and pages\n"
         "d              disassembly of the function that runs\n"
         "e              epochs of the log\n"
         "p PAGE [FROM]  16 elements of a page\n"
         "q              quit; a tick that has not ended never was");
}

/* 0: it is none. */
static int take_number(const char *text, uint64_t otherwise, uint64_t *number)
{
    *number = otherwise;
    return !text || qi_parse_number(text, number) == NULL;
}

/* 1: quit. */
static int obey(struct stepper *s, char *line)
{
    char *rest = NULL;
    const char *word = strtok_r(line, " \t\r\n", &rest);
    const char *first = strtok_r(NULL, " \t\r\n", &rest);
    const char *second = strtok_r(NULL, " \t\r\n", &rest);
    uint64_t number = 1;

    if (!word)
        return 0;
    switch (strlen(word) == 1 ? *word : '?') {
    case 's':
    case 'b':
        if (take_number(first, 1, &number))
            return *word == 's' ? forward(s, number) : back(s, number);
        break;
    case 't':
        return forward(s, UINT64_MAX);
    case 'r':
        return vm_print_state(s->context, s->m, 0);
    case 'd':
        show_function(s);
        return 0;
    case 'e':
        return show_epochs(s);
    case 'p':
        if (first && take_number(second, 0, &number))
            return show_page(s, first, number);
        break;
    case 'q':
        return 1;
    default:
        break;
    }
    help();
    return 0;
}

int vm_step(struct qi_context *context, const struct vm *vm, struct qv_session *session)
{
    struct stepper s = {.context = context, .session = session, .m = qv_session_machine(session)};
    char line[256];
    int rc;

    if (take_machine(&s) < 0)
        return QALLOW_E_NO_MEMORY;
    s.m->watch.what = QALLOW_VM_ON_INSTRUCTION;
    s.m->watch.tell = count;
    s.m->watch.context = &s;
    rc = vm->back ? back(&s, 1) : show_place(&s);
    while (rc == 0) {
        if (isatty(STDIN_FILENO)) {
            fputs("(vm) ", stdout);
            fflush(stdout);
        }
        if (!fgets(line, sizeof line, stdin))
            break;
        rc = obey(&s, line);
        if (rc == 0)
            rc = qi_stdout_flush();
    }
    free(s.memory);
    if (s.failed) {
        qi_report(context, rc);
        return QI_DIFFERS;
    }
    rc = rc < 0 ? rc : qi_signal_check(); /* at the prompt it ends the input */
    return rc < 0 ? rc : 0;
}
