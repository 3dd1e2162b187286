/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast the machine is: scalar programs in CPU seconds, to be compared with other interpreters
 * by scripts/bench-vm.sh, and vector instructions beside plain C loops, both in this process, in
 * turns, the best of several.
 *
 *     bench_vm scalar FILE.qvm     CPU seconds of one run
 *     bench_vm watch FILE.qvm...   what watching costs, beside the same run without
 *     bench_vm vector [THREADS]    a table
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "loops.h"
#include "qallow/error.h"
#include "vm/machine.h"

enum { ROUNDS = 9 };

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static struct qv_machine *machine_of(const char *text, struct qv_program **program)
{
    struct qv_source_error error;
    struct qv_machine *m = NULL;

    if (qv_assemble(text, strlen(text), "bench", program, &error) < 0 ||
        qv_machine_create(*program, &m) < 0) {
        fprintf(stderr, "%s\n%s\n", qallow_error_detail(), error.text);
        exit(1);
    }
    return m;
}

static struct qv_machine *machine_of_file(const char *path, struct qv_program **program)
{
    static char text[1 << 16];
    FILE *file = fopen(path, "r");

    memset(text, 0, sizeof text);
    if (!file || fread(text, 1, sizeof text - 1, file) == 0) {
        perror(path);
        exit(1);
    }
    fclose(file);
    return machine_of(text, program);
}

static int scalar(const char *path)
{
    struct qv_program *program;
    struct qv_machine *m = machine_of_file(path, &program);
    double start = cpu_seconds();
    qv_tick_begin(m);
    enum qv_stop stop = qv_run(m);
    double seconds = cpu_seconds() - start;
    for (size_t i = 0; i < m->emit_count; i++)
        fprintf(stderr, "%s %llx\n", program->names[m->emits[i].name].text,
                (unsigned long long)m->emits[i].value);
    printf("%f\n", seconds);
    qv_machine_destroy(m);
    qv_program_destroy(program);
    return stop != QV_HALTED;
}

/* --- watching --- */

static uint64_t told;
static int tell(void *context, struct qv_machine *m, uint32_t what, uint32_t which)
{
    (void)context, (void)m, (void)what, (void)which;
    told++;
    return 0;
}

enum watching { NOT, COUNTS, TICKS, CALLS, INSTRUCTIONS, WATCHINGS };

static double watched(const char *path, enum watching how)
{
    static const uint32_t what[WATCHINGS] = {0, 0, QALLOW_VM_ON_TICK | QALLOW_VM_ON_TICK_DONE,
                                             QALLOW_VM_ON_CALL | QALLOW_VM_ON_RETURN,
                                             QALLOW_VM_ON_INSTRUCTION};
    struct qv_program *program;
    struct qv_machine *m = machine_of_file(path, &program);

    m->watch.what = what[how];
    m->watch.tell = tell;
    if (qv_machine_count(m, how == COUNTS) < 0)
        exit(1);
    double start = cpu_seconds();
    qv_tick_begin(m);
    if (qv_run(m) != QV_HALTED)
        exit(1);
    double seconds = cpu_seconds() - start;
    qv_machine_destroy(m);
    qv_program_destroy(program);
    return seconds;
}

static int watch(int count, char **paths)
{
    printf("| program | seconds | counting | watching ticks | calls | instructions |\n"
           "| --- | --- | --- | --- | --- | --- |\n");
    for (int i = 0; i < count; i++) {
        double best[WATCHINGS];
        for (int round = 0; round < ROUNDS; round++)
            for (enum watching how = NOT; how < WATCHINGS; how++) {
                double seconds = watched(paths[i], how);
                best[how] = round == 0 || seconds < best[how] ? seconds : best[how];
            }
        printf("| %s | %.3f |", paths[i], best[NOT]);
        for (enum watching how = COUNTS; how < WATCHINGS; how++)
            printf(" x %.2f |", best[how] / best[NOT]);
        putchar('\n');
    }
    return 0;
}

/* A program that repeats the instruction, on pages of `bytes`, once a tick r6 times. */
static struct qv_machine *vector_machine(const struct loop *loop, size_t bytes, size_t repeats,
                                         struct qv_program **program)
{
    static char text[4096];

    snprintf(text, sizeof text,
             ".memory 8G\n.fuel 1000000000000000\n"
             ".page d u8 %zu\n.page a u8 %zu\n.page b u8 %zu\n.page m u8 %zu\n.page x u32 %zu\n"
             ".func main\n lc r0, 1.5\n li r1, 7\n lc r3, %zu\n li r4, 8\n lc r5, %zu\n"
             "tick: lc r6, %zu\nagain: %s\n addi r6, r6, -1\n jgti r6, 0, again\n commit\n"
             " jmp tick\n",
             bytes, bytes, bytes, bytes, bytes / 4, bytes / loop->element,
             bytes / loop->element - 7, repeats, loop->instruction);
    return machine_of(text, program);
}

static void fill(struct qv_machine *m, size_t bytes)
{
    for (size_t i = 0; i < bytes / 4; i++) {
        float a = (float)(i % 1000) * 0.5F + 1, b = (float)(i % 777) + 2;
        uint32_t x = (uint32_t)((i * 7919) % (bytes / 4));
        memcpy(m->pages[1].bytes + i * 4, &a, 4);
        memcpy(m->pages[2].bytes + i * 4, &b, 4);
        memcpy(m->pages[4].bytes + i * 4, &x, 4);
    }
    for (size_t i = 0; i < bytes; i++)
        m->pages[3].bytes[i] = (uint8_t)(i * i >> 3 & 1);
}

static void measure(const struct loop *loop, size_t bytes, int threads)
{
    struct qv_program *program;
    size_t n = bytes / loop->element, repeats = 1 + (((size_t)1 << 25) / loop->bytes) / n;
    struct qv_machine *m = vector_machine(loop, bytes, repeats, &program);
    double best[3] = {1e9, 1e9, 1e9};

    qv_machine_set_threads(m, threads);
    fill(m, bytes);
    void *d = m->pages[0].bytes, *a = m->pages[1].bytes, *b = m->pages[2].bytes;
    int gathers = strstr(loop->instruction, "gather") != NULL;
    for (int round = 0; round < ROUNDS; round++) {
        double times[4];
        times[0] = cpu_seconds();
        qv_tick_begin(m);
        if (qv_run(m) != QV_TICK_DONE)
            exit(1);
        times[1] = cpu_seconds();
        for (size_t i = 0; i < repeats; i++)
            loop->run(d, a, gathers ? m->pages[4].bytes : b, m->pages[3].bytes, n);
        times[2] = cpu_seconds();
        for (size_t i = 0; i < repeats; i++) { /* as many bytes in as out */
            memcpy(d, a, bytes);
            __asm__ volatile("" ::: "memory");
        }
        times[3] = cpu_seconds();
        for (int i = 0; i < 3; i++)
            if (times[i + 1] - times[i] < best[i])
                best[i] = times[i + 1] - times[i];
    }
    double moved = (double)loop->bytes * (double)n * (double)repeats * 1e-9;
    printf("%-22s %9zu %8.1f %8.1f %8.2f %10.2f\n", loop->name, bytes >> 10, moved / best[0],
           moved / best[1], best[1] / best[0],
           moved / best[0] / (2e-9 * (double)bytes * (double)repeats / best[2]));
    qv_machine_destroy(m);
    qv_program_destroy(program);
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {4096, 256 << 10, 64 << 20};

    if (argc == 3 && strcmp(argv[1], "scalar") == 0)
        return scalar(argv[2]);
    if (argc >= 3 && strcmp(argv[1], "watch") == 0)
        return watch(argc - 2, argv + 2);
    int threads = argc == 3 ? (int)strtol(argv[2], NULL, 10) : 1;
    printf("%-22s %9s %8s %8s %8s %10s\n", "instruction", "page KiB", "GB/s", "C GB/s", "of C",
           "of memcpy");
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (size_t i = 0; i < loop_count; i++)
            measure(&loops[i], sizes[s], threads);
    return 0;
}
