/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Code pages and patches, over random programs: every function comes back from its page and from
 * its text as it was; a patch gives new ages to exactly what was changed, old definitions live as
 * long as their calls, a log with patches runs again to the same digests, from any epoch; and what
 * a text says below .world is not believed. QALLOW_VM_PROGRAMS and QALLOW_SEED as in
 * differential.c.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "generate.h"
#include "hostile.h"
#include "qallow/error.h"
#include "runtime/os.h"
#include "tests/random.h"
#include "vm/session.h"
#include "vm/state.h"
#include "vm/world.h"

enum { ROUNDS = 16, FUNCTIONS = 6 };

static uint64_t state;
static uint64_t below(uint64_t n) { return next_random(&state) % n; }

static uint64_t seed, number; /* of the program, for messages */
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("QALLOW_SEED=%llu, program %llu, %s:%d: %s (%s)\n", (unsigned long long)seed,   \
                   (unsigned long long)number, __FILE__, __LINE__, #condition,                     \
                   qallow_error_detail());                                                         \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

struct text {
    char at[1 << 21];
    size_t length;
};
static int collect(void *context, const char *bytes, size_t length)
{
    struct text *t = context;
    MUST(t->length + length <= sizeof t->at);
    memcpy(t->at + t->length, bytes, length);
    t->length += length;
    return 0;
}

static struct qv_program *assemble(const char *text, size_t length)
{
    struct qv_program *program = NULL;
    struct qv_source_error error;
    MUST(qv_assemble(text, length, "text", &program, &error) == 0);
    return program;
}

/* --- code pages --- */

static uint64_t different; /* functions that have been seen */
static uint64_t *seen;

static void remember(const uint8_t *bytes, size_t length)
{
    uint64_t sum = length;
    for (size_t i = 0; i < length; i++)
        sum = (sum ^ bytes[i]) * UINT64_C(0x100000001b3);
    for (uint64_t i = 0; i < different; i++)
        if (seen[i] == sum)
            return;
    seen = realloc(seen, (different + 1) * sizeof *seen);
    seen[different++] = sum;
}

static void check_page(const struct qv_function *f)
{
    struct qv_function back;
    uint8_t *bytes = NULL, *again = NULL;
    size_t length = 0, again_length = 0;

    MUST(qv_function_encode(f, &bytes, &length) == 0);
    MUST(qv_function_decode(bytes, length, &back) == 0);
    MUST(back.arguments == f->arguments && back.registers == f->registers && back.age == f->age);
    MUST(back.word_count == f->word_count &&
         memcmp(back.words, f->words, f->word_count * sizeof *f->words) == 0);
    MUST(back.is_closed == f->is_closed && back.formal_count == f->formal_count);
    for (size_t i = 0; i < f->formal_count; i++)
        MUST(back.formals[i].type == f->formals[i].type);
    MUST(qv_function_encode(&back, &again, &again_length) == 0);
    MUST(again_length == length && memcmp(again, bytes, length) == 0);
    remember(bytes, length);
    qr_free(back.words);
    qr_free(back.formals);
    qr_free(again);
    /* A page that was cut, or says another number of words, is none, or that of another function.
     */
    for (int cut = 0; cut < 2; cut++) {
        size_t left = cut ? length - 1 - below(length) : length;
        uint8_t mask = cut ? 0 : (uint8_t)(1 + below(255));
        bytes[8] ^= mask;
        if (qv_function_decode(bytes, left, &back) == 0) {
            MUST(qv_function_encode(&back, &again, &again_length) == 0);
            MUST(again_length == left && memcmp(again, bytes, left) == 0);
            qr_free(back.words);
            qr_free(back.formals);
            qr_free(again);
        }
        bytes[8] ^= mask;
    }
    qr_free(bytes);
}

static struct qv_program *again(const struct qv_program *program)
{
    static struct text text;
    text.length = 0;
    MUST(qv_disassemble(program, collect, &text) == 0);
    return assemble(text.at, text.length);
}

/* The program as it is when it was assembled: emitted names have the numbers of their order. */
static struct qv_program *check_functions(const struct qv_program *generated)
{
    struct qv_program *program = again(generated), *other = again(program);

    for (size_t i = 0; i < program->function_count; i++) {
        const struct qv_function *f = &program->functions[i], *g = &other->functions[i];
        check_page(f);
        MUST(strcmp(f->name, g->name) == 0 && f->arguments == g->arguments);
        MUST(f->registers == g->registers && f->word_count == g->word_count);
        MUST(memcmp(f->words, g->words, f->word_count * sizeof *f->words) == 0);
        MUST(qv_same_function(program, f, other, g));
    }
    qv_program_destroy(other);
    return program;
}

/* Functions of derived pages that call others; random programs have more of them. */
static void check_closed(void)
{
    static const char text[] = ".page a u64 8\n.page d u64 3\n"
                               ".node b u64 8 sum elementwise a, whole d\n"
                               ".node c f32 8 far window a 1 2\n"
                               ".func main\n halt\n"
                               ".func sum 2 of out u64, in u64, all u64\n"
                               " reduce.add.u64 r2, all\n call r2, twice\n"
                               " vadd.u64 out, in, r2\n ret\n"
                               ".func far of out f32, in u64\n len r0, out\n"
                               " vcvt.f32.u64 out, in\n call r1, none\n ret\n"
                               ".func twice 1 pure\n add r0, r0, r0\n ret\n"
                               ".func none pure\n ret\n";
    struct qv_program *program = assemble(text, strlen(text));
    struct qv_program *back = check_functions(program);

    for (size_t i = 0; i < program->function_count; i++)
        MUST(qv_same_function(program, &program->functions[i], back, &back->functions[i]));
    qv_program_destroy(program);
    qv_program_destroy(back);
}

/* --- patches --- */

/* Puts a nop in front, which no jump crosses. */
static void change_function(struct qv_function *f)
{
    MUST(QR_GROW(f->words, f->word_count, f->word_capacity) == 0);
    memmove(f->words + 1, f->words, f->word_count * sizeof *f->words);
    f->words[0] = qv_word(QV_NOP, 0, 0, 0, 0);
    f->word_count++;
    for (size_t i = 0; i < f->label_count; i++)
        f->labels[i].word++;
}

/* Some functions changed, and the rest in another order. */
static void make_patch(const struct qv_program *program, struct text *text, uint8_t *changed)
{
    struct qv_program *next = again(program);
    size_t current = qv_current_count(next);

    for (size_t i = 0; i < current; i++) {
        changed[i] = below(2) == 0;
        if (changed[i])
            change_function(&next->functions[i]);
    }
    if (current > 2 && below(2)) { /* two change places: calls to them become others, */
        for (size_t i = 0; i < next->function_count; i++) {
            struct qv_function *f = &next->functions[i];
            for (uint32_t w = 0; w < f->word_count; w += qv_op_words(qv_word_op(f->words[w])))
                if (qv_word_op(f->words[w]) == QV_CALL && qv_word_imm(f->words[w]) >= 1 &&
                    qv_word_imm(f->words[w]) <= 2)
                    f->words[w] ^= UINT64_C(3) << 32; /* so they are led there again */
        }
        struct qv_function one = next->functions[1];
        next->functions[1] = next->functions[2];
        next->functions[2] = one;
    }
    text->length = 0;
    MUST(qv_disassemble(next, collect, text) == 0);
    qv_program_destroy(next);
}

static int reaches(const struct qv_program *p, uint32_t from, uint32_t to, uint8_t *visited)
{
    if (from == to)
        return 1;
    visited[from] = 1;
    const struct qv_function *f = &p->functions[from];
    for (uint32_t w = 0; w < f->word_count; w += qv_op_words(qv_word_op(f->words[w])))
        if (qv_word_op(f->words[w]) == QV_CALL && !visited[qv_word_imm(f->words[w])] &&
            reaches(p, (uint32_t)qv_word_imm(f->words[w]), to, visited))
            return 1;
    return 0;
}

static void check_ages(const struct qv_program *p)
{
    uint32_t ages[64];
    MUST(p->function_count <= 64 && qv_reached_ages(p, ages) == 0);
    for (uint32_t i = 0; i < p->function_count; i++) {
        uint32_t greatest = 0;
        for (uint32_t to = 0; to < p->function_count; to++) {
            uint8_t visited[64] = {0};
            if (p->functions[to].age > greatest && reaches(p, i, to, visited))
                greatest = p->functions[to].age;
        }
        MUST(ages[i] == greatest);
    }
}

static uint64_t patches, kept, dropped;

static void patch(struct qv_session *s)
{
    static struct text text;
    struct qv_source_error error;
    struct qv_patched patched;
    const struct qv_program *program = qv_session_machine(s)->program;
    uint8_t changed[64];
    char names[64][QV_MAX_FUNCTION_NAME + 1];
    size_t count = qv_current_count(program), defined = 0;
    uint32_t world = program->world;

    make_patch(program, &text, changed);
    for (size_t i = 0; i < count; i++)
        memcpy(names[i], program->functions[i].name, sizeof names[i]);
    MUST(qv_session_patch(s, text.at, text.length, "patch", &error, &patched) == 0);
    program = qv_session_machine(s)->program;
    MUST(program->world == world + 1 && patched.world == program->world);
    for (size_t i = 0; i < count; i++) {
        int at = qv_find_function(program, names[i]);
        MUST(at >= 0 && (program->functions[at].age == program->world) == changed[i]);
        defined += changed[i];
    }
    MUST(patched.defined == defined && patched.gone == 0);
    MUST(program->retired_count == patched.kept);
    check_ages(program);
    patches++;
    kept += patched.kept;
}

/* Ticks, and patches between them. */
static void run(struct qv_session *s)
{
    enum qv_stop stop;

    for (int i = 0; i < ROUNDS; i++) {
        if (below(3) == 0)
            patch(s);
        size_t before = qv_session_machine(s)->program->retired_count;
        MUST(qv_session_tick(s, &stop, NULL) == 0);
        dropped += before - qv_session_machine(s)->program->retired_count;
    }
}

static char directory[64] = "/tmp/qallow-world-XXXXXX", logs[2][80];

static void forget(const char *log)
{
    static const char *const endings[] = {"", "-index", ".lock"};
    char path[100];
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s%s", log, endings[i]);
        unlink(path);
    }
}

static void digest_of(struct qallow_store *store, uint64_t epoch, uint64_t digest[2])
{
    struct qallow_epoch info = QALLOW_EPOCH_INIT;
    MUST(qallow_epoch_get(store, epoch, &info) == 0);
    memcpy(digest, info.digest, sizeof info.digest);
}

/* A branch from any epoch begins with its digest, and runs again to the same. */
static void branch(uint64_t epochs)
{
    struct qv_session_options options = {.log = logs[1], .threads = 1};
    struct qallow_store *store = NULL;
    struct qv_session *s = NULL;
    uint64_t epoch = 1 + below(epochs), count = 0, digests[2][2];
    enum qv_stop stop;

    options.store = (struct qallow_options)QALLOW_OPTIONS_INIT;
    options.store.sync = QALLOW_SYNC_NONE;
    MUST(qallow_open(logs[0], NULL, &store) == 0);
    digest_of(store, epoch, digests[0]);
    MUST(qallow_close(store) == 0);
    MUST(qv_session_resume(logs[0], epoch, &options, &s) == 0);
    digest_of(qv_session_store(s), 1, digests[1]);
    MUST(memcmp(digests[0], digests[1], sizeof digests[0]) == 0);
    MUST(qv_session_tick(s, &stop, NULL) == 0);
    patch(s);
    MUST(qv_session_close(s) == 0);
    MUST(qv_session_check(logs[1], &(struct qv_check_options){.threads = 1}, &count) == 0);
    forget(logs[1]);
}

static void write_line(struct text *text, const char *format, ...)
{
    char line[100];
    va_list arguments;
    va_start(arguments, format);
    collect(text, line, (size_t)vsnprintf(line, sizeof line, format, arguments));
    va_end(arguments);
}

/* Functions that call each other and end ticks on the way, for ever. */
static void write_program(struct text *text)
{
    text->length = 0;
    write_line(text, ".page sums u64 %u\n.func main\nagain:\n call r1, f1\n commit\n jmp again\n",
               FUNCTIONS);
    for (unsigned i = 1; i <= FUNCTIONS; i++) {
        write_line(text, ".func f%u\n li r1, %u\n", i, i - 1);
        for (uint64_t items = 1 + below(4); items > 0; items--) {
            if (i < FUNCTIONS && below(3) > 0)
                write_line(text, " call r3, f%u\n", i + 1 + (unsigned)below(FUNCTIONS - i));
            if (below(2))
                write_line(text, " commit\n");
            write_line(text, " ld.64 r2, sums[r1]\n addi r2, r2, %u\n st.64 r2, sums[r1]\n",
                       (unsigned)below(100));
        }
        write_line(text, " ret\n");
    }
}

static void check_session(void)
{
    static struct text text;
    struct qv_session_options options = {.log = logs[0], .threads = 1};
    struct qv_session *s = NULL;
    uint64_t epochs = 0;

    write_program(&text);
    options.store = (struct qallow_options)QALLOW_OPTIONS_INIT;
    options.store.sync = QALLOW_SYNC_NONE;
    MUST(qv_session_create(text.at, text.length, "program", &options, &s) == 0);
    run(s);
    MUST(qv_session_close(s) == 0);
    MUST(qv_session_check(logs[0], &(struct qv_check_options){.threads = 1}, &epochs) == 0);
    branch(epochs);
    forget(logs[0]);
}

/* --- texts with a world --- */

static uint64_t taken, refused;

static void check_world_text(struct qv_program *program)
{
    static struct text text;
    char *with_world = NULL;
    size_t length = 0;
    uint8_t keep[64];

    text.length = 0;
    MUST(qv_disassemble(program, collect, &text) == 0);
    program->world = 1 + (uint32_t)below(5);
    for (size_t i = 0; i < program->function_count; i++) {
        program->functions[i].age = (uint32_t)below(program->world);
        keep[i] = below(2) == 0;
    }
    MUST(qv_world_text(text.at, text.length, program, program, keep, &with_world, &length) == 0);
    struct qv_program *back = assemble(with_world, length);
    MUST(back->world == program->world && back->source_length == text.length);
    size_t old = qv_current_count(back);
    for (size_t i = 0; i < program->function_count; i++) {
        MUST(back->functions[i].age == program->functions[i].age);
        if (!keep[i])
            continue;
        MUST(qv_same_function(program, &program->functions[i], back, &back->functions[old]));
        MUST(qv_current_of(back, (uint32_t)old) == i);
        old++;
    }
    MUST(old == back->function_count);
    MUST(hostile_text(with_world, length));
    for (int i = 0; i < 4; i++) {
        char *copy = malloc(length);
        memcpy(copy, with_world, length);
        size_t from = text.length < length ? text.length : 0;
        copy[from + below(length - from)] ^= (char)(1 << below(7));
        if (hostile_text(copy, length))
            taken++;
        else
            refused++;
        free(copy);
    }
    qr_free(with_world);
    qv_program_destroy(back);
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 0) : otherwise;
}

int main(void)
{
    uint64_t count = number_of("QALLOW_VM_PROGRAMS", 80);
    const char *place = getenv("TMPDIR");

    state = seed = number_of("QALLOW_SEED", 1);
    snprintf(directory, sizeof directory, "%.40s/qallow-world-XXXXXX",
             place && strlen(place) < 40 ? place : "/tmp");
    MUST(mkdtemp(directory));
    snprintf(logs[0], sizeof logs[0], "%s/log", directory);
    snprintf(logs[1], sizeof logs[1], "%s/branch", directory);
    check_closed();
    for (number = 0; number < count; number++) {
        struct qv_program *generated = generate_program(seed * 1000003 + number);
        struct qv_program *program = check_functions(generated);
        if (number % 8 == 0)
            check_session();
        check_world_text(program);
        qv_program_destroy(generated);
        qv_program_destroy(program);
    }
    rmdir(directory);
    free(seen);
    printf("QALLOW_SEED=%llu: %llu different functions; %llu patches, %llu old definitions kept, "
           "%llu dropped; texts with a world: %llu taken, %llu refused\n",
           (unsigned long long)seed, (unsigned long long)different, (unsigned long long)patches,
           (unsigned long long)kept, (unsigned long long)dropped, (unsigned long long)taken,
           (unsigned long long)refused);
    return different < 20 || !patches || !kept || !dropped || !taken || !refused;
}
