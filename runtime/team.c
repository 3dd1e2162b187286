/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work shared out among threads, see team.h. Threads live as long as the work: starting one takes
 * some 20 us, which is little beside what is worth sharing.
 */
#include <pthread.h>
#include <stdio.h>

#include "runtime/error.h"
#include "runtime/team.h"

struct team {
    const struct qr_team_work *work;
    void *context;
    uint64_t count, share;
    pthread_mutex_t mutex; /* guards what follows */
    uint64_t next;         /* item */
    int rc;
    uint64_t failed; /* the first item of the share that gave rc */
    char detail[1024];
};

static void fail(struct team *t, int rc, uint64_t first)
{
    pthread_mutex_lock(&t->mutex);
    if (!t->rc || first < t->failed) {
        t->rc = rc;
        t->failed = first;
        snprintf(t->detail, sizeof t->detail, "%s", qallow_error_detail());
    }
    pthread_mutex_unlock(&t->mutex);
}

static int take(struct team *t, uint64_t *first, uint64_t *end)
{
    pthread_mutex_lock(&t->mutex);
    int more = !t->rc && t->next < t->count;
    *first = t->next;
    *end = t->count - t->next < t->share ? t->count : t->next + t->share;
    if (more)
        t->next = *end;
    pthread_mutex_unlock(&t->mutex);
    return more;
}

static void run(struct team *t, int is_caller)
{
    uint64_t first, end;
    void *own = NULL;
    int rc = t->work->begin ? t->work->begin(t->context, &own) : 0;
    if (rc && is_caller)
        fail(t, rc, 0);
    while (!rc && take(t, &first, &end))
        if ((rc = t->work->work(t->context, own, first, end)))
            fail(t, rc, first);
    if (t->work->end)
        t->work->end(t->context, own);
}

static void *run_thread(void *context)
{
    run(context, 0);
    return NULL;
}

int qr_team(int threads, uint64_t count, uint64_t share, const struct qr_team_work *work,
            void *context)
{
    struct team t = {.work = work, .context = context, .count = count, .share = share};
    pthread_t others[QR_TEAM_MAX];
    uint64_t shares = (count + share - 1) / share;
    int started = 0;
    if (threads > QR_TEAM_MAX)
        threads = QR_TEAM_MAX;
    pthread_mutex_init(&t.mutex, NULL);
    while (started < threads - 1 && (uint64_t)started + 1 < shares &&
           !pthread_create(&others[started], NULL, run_thread, &t))
        started++;
    run(&t, 1);
    for (int i = 0; i < started; i++)
        pthread_join(others[i], NULL);
    pthread_mutex_destroy(&t.mutex);
    return t.rc ? qr_fail(t.rc, "%s", t.detail) : 0;
}
