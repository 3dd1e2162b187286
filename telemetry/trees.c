/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trees that a process keeps, and the values that each of them has of its own.
 *
 * What is set by a keeper's thread goes to the tree that the thread has opened, so that whoever
 * sets a metric need not know that there are trees. What changes while a keeper sleeps (readers of
 * its cache count, workers are busy, time passes) is asked for by whoever writes, through
 * `refresh`; one lock is held for that, while a row is made of the trees, and while one comes or
 * goes.
 *
 * The workers of a process are numbered through: each tree has a range of its own, as long as it is
 * open, which begins at the lowest number that is free.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "telemetry/encoder.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct qt_tree *trees; /* in the order in which they were opened */
static _Thread_local struct qt_tree *own;

const struct qt_tree *qt_trees_lock(void)
{
    pthread_mutex_lock(&lock);
    return trees;
}

void qt_trees_unlock(void) { pthread_mutex_unlock(&lock); }

int qt_tree_open(const char *name, struct qt_tree **tree)
{
    size_t size = strlen(name) + 1;
    struct qt_tree *new_tree = calloc(1, sizeof *new_tree + size), **end = &trees;
    *tree = new_tree;
    if (!new_tree)
        return -1;
    memcpy(new_tree->name, name, size);
    pthread_mutex_lock(&lock);
    while (*end)
        end = &(*end)->next;
    *end = new_tree;
    pthread_mutex_unlock(&lock);
    own = new_tree;
    return 0;
}

void qt_tree_close(struct qt_tree *tree)
{
    struct qt_tree **at = &trees;
    if (!tree)
        return;
    pthread_mutex_lock(&lock);
    while (*at != tree)
        at = &(*at)->next;
    *at = tree->next;
    pthread_mutex_unlock(&lock);
    if (own == tree)
        own = NULL;
    free(tree);
}

/* A tree with one of these workers, or NULL. */
static const struct qt_tree *whose(unsigned first, unsigned count)
{
    for (const struct qt_tree *tree = trees; tree; tree = tree->next)
        if (first < tree->first_worker + tree->workers && tree->first_worker < first + count)
            return tree;
    return NULL;
}

void qt_tree_refresh_by(struct qt_tree *tree, unsigned workers,
                        void (*refresh)(void *context, uint64_t *busy_ns), void *context)
{
    const struct qt_tree *other;
    unsigned first = 0;
    pthread_mutex_lock(&lock);
    tree->workers = 0;
    while ((other = whose(first, workers)))
        first = other->first_worker + other->workers;
    tree->first_worker = first;
    tree->workers = workers;
    tree->refresh = refresh;
    tree->context = context;
    pthread_mutex_unlock(&lock);
}

void qt_trees_refresh(uint64_t now_ns)
{
    size_t count = 0;
    pthread_mutex_lock(&lock);
    for (const struct qt_tree *tree = trees; tree; tree = tree->next)
        if (tree->first_worker + tree->workers > count)
            count = tree->first_worker + tree->workers;
    uint64_t *busy_ns = calloc(count + 1, sizeof *busy_ns);
    if (busy_ns)
        qt_workers_known(busy_ns, count); /* a range that nobody has now keeps what it had */
    for (struct qt_tree *tree = trees; tree && busy_ns; tree = tree->next)
        if (tree->refresh)
            tree->refresh(tree->context, busy_ns + tree->first_worker);
    if (count && busy_ns)
        qt_workers_busy(busy_ns, (unsigned)count, now_ns);
    pthread_mutex_unlock(&lock);
    free(busy_ns);
}

void qt_tree_set(struct qt_tree *tree, enum qt_metric metric, uint64_t value)
{
    atomic_store_explicit(&tree->values[metric], value, memory_order_relaxed);
}

uint64_t qt_tree_get(const struct qt_tree *tree, enum qt_metric metric)
{
    return atomic_load_explicit(&tree->values[metric], memory_order_relaxed);
}

struct qt_tree *qt_tree_of_thread(enum qt_metric metric)
{
    return qt_descriptions[metric].kind == QT_TREE_GAUGE ? own : NULL;
}
