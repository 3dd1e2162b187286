/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads of vector instructions. They take the parts of one job after the other from a
 * counter; the thread that runs the machine takes its share. Which thread takes which part shows
 * nowhere.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "vm/machine.h"

struct qv_pool {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    pthread_t *threads;
    int count;     /* of threads */
    int busy;      /* threads that have not finished the present job */
    uint64_t jobs; /* that were ever begun */
    int ending;
    void (*run)(void *context, size_t part);
    void *context;
    size_t parts;
    atomic_size_t next;
};

static void take_parts(struct qv_pool *pool)
{
    for (;;) {
        size_t part = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (part >= pool->parts)
            return;
        pool->run(pool->context, part);
    }
}

static void *worker(void *context)
{
    struct qv_pool *pool = context;
    uint64_t seen = 0;

    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (pool->jobs == seen && !pool->ending)
            pthread_cond_wait(&pool->work, &pool->lock);
        if (pool->ending)
            break;
        seen = pool->jobs;
        pthread_mutex_unlock(&pool->lock);
        take_parts(pool);
        pthread_mutex_lock(&pool->lock);
        if (--pool->busy == 0)
            pthread_cond_signal(&pool->done);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

int qv_pool_create(int threads, struct qv_pool **pool)
{
    struct qv_pool *made = qr_calloc(1, sizeof *made);

    *pool = NULL;
    if (made)
        made->threads = qr_calloc((size_t)threads, sizeof *made->threads);
    if (!made || !made->threads) {
        qr_free(made);
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for %d threads", threads);
    }
    pthread_mutex_init(&made->lock, NULL);
    pthread_cond_init(&made->work, NULL);
    pthread_cond_init(&made->done, NULL);
    for (; made->count < threads - 1; made->count++) {
        int err = pthread_create(&made->threads[made->count], NULL, worker, made);
        if (err != 0) {
            qv_pool_destroy(made);
            return qr_fail_errno(err, "cannot start a thread");
        }
    }
    *pool = made;
    return 0;
}

void qv_pool_destroy(struct qv_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->ending = 1;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    while (pool->count > 0)
        pthread_join(pool->threads[--pool->count], NULL);
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->done);
    pthread_mutex_destroy(&pool->lock);
    qr_free(pool->threads);
    qr_free(pool);
}

void qv_pool_run(struct qv_pool *pool, void (*run)(void *context, size_t part), void *context,
                 size_t parts)
{
    pthread_mutex_lock(&pool->lock);
    pool->run = run;
    pool->context = context;
    pool->parts = parts;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    pool->busy = pool->count;
    pool->jobs++;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    take_parts(pool);
    pthread_mutex_lock(&pool->lock);
    while (pool->busy > 0)
        pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}
