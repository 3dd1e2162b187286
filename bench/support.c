/* SPDX-License-Identifier: Apache-2.0 */
/* What cases share: memory, random bytes, threads; and numbers as text. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "bench/case.h"
#include "runtime/error.h"
#include "runtime/os.h"

clockid_t qm_clock = CLOCK_MONOTONIC;

void qm_random_fill(uint64_t *state, void *bytes, size_t length)
{
    uint8_t *at = bytes;
    for (; length >= 8; at += 8, length -= 8) {
        uint64_t r = qm_random(state);
        memcpy(at, &r, 8);
    }
    uint64_t r = qm_random(state);
    memcpy(at, &r, length);
}

int qm_no_memory(void) { return qr_fail(QALLOW_E_NO_MEMORY, "no memory to measure in"); }

int qm_map(size_t length, uint8_t **bytes)
{
    void *p = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *bytes = NULL;
    if (p == MAP_FAILED)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for %zu bytes", length);
    madvise(p, length, MADV_HUGEPAGE);
    *bytes = memset(p, 1, length);
    return 0;
}

void qm_unmap(uint8_t *bytes, size_t length)
{
    if (bytes)
        munmap(bytes, length);
}

/* --- threads --- */

struct worker {
    pthread_t thread;
    unsigned number;
    int rc;
    int (*work)(void *context, unsigned thread);
    void *context;
    char detail[256];
};

static void *run_worker(void *argument)
{
    struct worker *worker = argument;
    worker->rc = worker->work(worker->context, worker->number);
    if (worker->rc < 0)
        snprintf(worker->detail, sizeof worker->detail, "%s", qallow_error_detail());
    return NULL;
}

int qm_in_threads(unsigned threads, int (*work)(void *context, unsigned thread), void *context)
{
    struct worker *workers;
    unsigned started = 0;
    int rc = 0;
    if (threads == 1)
        return work(context, 0);
    workers = qr_calloc(threads, sizeof *workers);
    if (!workers)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for %u threads", threads);
    for (; rc == 0 && started < threads; started++) {
        struct worker *w = &workers[started];
        *w = (struct worker){.number = started, .work = work, .context = context};
        int error = pthread_create(&w->thread, NULL, run_worker, w);
        if (error) {
            rc = qr_fail_errno(error, "thread %u of %u", started + 1, threads);
            break;
        }
    }
    for (unsigned i = 0; i < started; i++) {
        pthread_join(workers[i].thread, NULL);
        if (rc == 0 && workers[i].rc < 0)
            rc = qr_fail(workers[i].rc, "%s", workers[i].detail);
    }
    qr_free(workers);
    return rc;
}

/* --- numbers and times --- */

const char *qm_number(double value, char text[QM_NUMBER_MAX])
{
    double size = fabs(value);
    int decimals = size >= 99.95 || size == 0 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : 3;
    char plain[32];
    size_t out = 0;
    if (size > 0 && size < 0.01) {
        snprintf(text, QM_NUMBER_MAX, "%.2g", value);
        return text;
    }
    if (size >= 1e12) {
        snprintf(text, QM_NUMBER_MAX, "%.3g", value);
        return text;
    }
    size_t length = (size_t)snprintf(plain, sizeof plain, "%.*f", decimals, value);
    size_t whole = strcspn(plain, ".");
    for (size_t i = 0; i < length; i++) {
        if (i && i < whole && (whole - i) % 3 == 0 && plain[i - 1] != '-')
            text[out++] = ',';
        text[out++] = plain[i];
    }
    text[out] = '\0';
    return text;
}

const char *qm_format_time(int64_t ns, char text[QM_TIME_MAX])
{
    time_t seconds = (time_t)(ns / 1000000000);
    struct tm parts;
    gmtime_r(&seconds, &parts);
    strftime(text, QM_TIME_MAX, "%Y-%m-%dT%H:%M:%SZ", &parts);
    return text;
}
