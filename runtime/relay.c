/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handing batches from one thread to another.
 *
 * There are two: one is filled while the other is taken. `passed` is the one that is taken, NULL
 * when that is done; who fills waits for that before he passes his own and goes on with the other.
 * So memory is bounded, batches are taken in their order, and what they make of a log does not
 * depend on there being a thread.
 */
#include "runtime/relay.h"

#include <pthread.h>
#include <stdio.h>

#include "runtime/batch_internal.h"
#include "runtime/error.h"
#include "runtime/os.h"

struct qr_relay {
    qr_relay_take take;
    void *context;
    struct qr_batch *batches[2];
    unsigned filling; /* which of them */
    int is_threaded;
    pthread_t thread;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    struct qr_batch *passed;
    int is_over;
    int rc; /* of the batch that could not be taken */
    char detail[1024];
};

static void *take_all(void *context)
{
    struct qr_relay *relay = context;
    pthread_mutex_lock(&relay->lock);
    while (relay->passed || !relay->is_over) {
        if (!relay->passed) {
            pthread_cond_wait(&relay->changed, &relay->lock);
            continue;
        }
        pthread_mutex_unlock(&relay->lock);
        int rc = relay->take(relay->context, relay->passed);
        pthread_mutex_lock(&relay->lock);
        relay->passed = NULL;
        relay->rc = rc;
        if (rc) {
            snprintf(relay->detail, sizeof relay->detail, "%s", qallow_error_detail());
            relay->is_over = 1;
        }
        pthread_cond_signal(&relay->changed);
    }
    pthread_mutex_unlock(&relay->lock);
    return NULL;
}

int qr_relay_create(int compress_level, int is_threaded, qr_relay_take take, void *context,
                    struct qr_relay **out)
{
    struct qr_relay *relay = qr_calloc(1, sizeof *relay);
    *out = NULL;
    if (!relay)
        return qr_fail(QALLOW_E_NO_MEMORY, "batches");
    relay->take = take;
    relay->context = context;
    pthread_mutex_init(&relay->lock, NULL);
    pthread_cond_init(&relay->changed, NULL);
    int rc = qr_batch_create(compress_level, &relay->batches[0]);
    if (!rc && is_threaded)
        rc = qr_batch_create(compress_level, &relay->batches[1]);
    if (rc) {
        (void)qr_relay_finish(relay);
        return rc;
    }
    relay->is_threaded = is_threaded && pthread_create(&relay->thread, NULL, take_all, relay) == 0;
    *out = relay;
    return 0;
}

struct qr_batch *qr_relay_batch(const struct qr_relay *relay)
{
    return relay->batches[relay->filling];
}

/* Under the lock: how the batch before went. */
static int wait_for_it(struct qr_relay *relay)
{
    while (relay->passed)
        pthread_cond_wait(&relay->changed, &relay->lock);
    return relay->rc ? qr_fail(relay->rc, "%s", relay->detail) : 0;
}

int qr_relay_pass(struct qr_relay *relay)
{
    if (!relay->is_threaded)
        return relay->take(relay->context, qr_relay_batch(relay));
    pthread_mutex_lock(&relay->lock);
    int rc = wait_for_it(relay);
    if (!rc) {
        relay->passed = qr_relay_batch(relay);
        relay->filling ^= 1;
        qr_batch_take_over(qr_relay_batch(relay), relay->passed);
        pthread_cond_signal(&relay->changed);
    }
    pthread_mutex_unlock(&relay->lock);
    return rc;
}

int qr_relay_finish(struct qr_relay *relay)
{
    int rc = 0;
    if (!relay)
        return 0;
    if (relay->is_threaded) {
        pthread_mutex_lock(&relay->lock);
        rc = wait_for_it(relay);
        relay->is_over = 1;
        pthread_cond_signal(&relay->changed);
        pthread_mutex_unlock(&relay->lock);
        pthread_join(relay->thread, NULL);
    }
    pthread_cond_destroy(&relay->changed);
    pthread_mutex_destroy(&relay->lock);
    qr_batch_destroy(relay->batches[0]);
    qr_batch_destroy(relay->batches[1]);
    qr_free(relay);
    return rc;
}
