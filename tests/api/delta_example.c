/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deltas between buffers of a program's own, without a store: a trainer keeps the weights that
 * every worker has and sends what a step changed; a worker applies it, verified, and takes it back.
 * For tensors on a GPU `location` is QALLOW_GPU, `data` a pointer of its allocator, and the last
 * argument but one the stream that they were written in.
 *
 *     cc delta_example.c $(pkg-config --cflags --libs qallow) -o delta && ./delta
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qallow/delta.h"
#include "qallow/store.h" /* enum qallow_location */

enum { WEIGHTS = 1 << 20, CHANGED = WEIGHTS / 100 };

static void check(int result, const char *what)
{
    if (result == QALLOW_OK)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, qallow_strerror(result), qallow_error_detail());
    exit(EXIT_FAILURE);
}

static float *new_weights(void)
{
    float *weights = calloc(WEIGHTS, sizeof *weights);
    if (!weights)
        exit(EXIT_FAILURE);
    return weights;
}

static struct qallow_buffer buffer(void *data, uint64_t length)
{
    struct qallow_buffer made = QALLOW_BUFFER_INIT;
    made.location = QALLOW_CPU;
    made.data = data;
    made.length = length;
    return made;
}

int main(void)
{
    const uint64_t bytes = WEIGHTS * sizeof(float);
    float *base = new_weights(), *trained = new_weights(), *worker = new_weights();
    struct qallow_buffer from = buffer(base, bytes), to = buffer(trained, bytes);
    struct qallow_buffer state = buffer(worker, bytes);
    uint64_t capacity, length;

    for (uint32_t i = 0; i < CHANGED; i++)
        trained[i * 7919u % WEIGHTS] = (float)i + 1;
    check(qallow_delta_bound(&from, 1, &capacity), "asking for the bound");
    struct qallow_buffer delta = buffer(malloc(capacity), capacity);
    if (!delta.data)
        return EXIT_FAILURE;
    check(qallow_delta_extract(&from, &to, 1, &delta, NULL, &length), "extracting");
    printf("%d of %d weights changed: %" PRIu64 " bytes for %" PRIu64 "\n", CHANGED, WEIGHTS,
           length, bytes);

    check(qallow_delta_apply(&state, 1, &delta, length, NULL), "applying");
    printf("the worker has %s weights\n",
           memcmp(worker, trained, bytes) ? "other" : "the trainer's");
    int again = qallow_delta_apply(&state, 1, &delta, length, NULL);
    printf("applied again: %s\n", qallow_strerror(again));
    check(qallow_delta_undo(&state, 1, &delta, length, NULL), "taking back");
    printf("taken back: %s\n", memcmp(worker, base, bytes) ? "other weights" : "the old weights");

    free(base);
    free(trained);
    free(worker);
    free(delta.data);
    return again == QALLOW_E_DIFFERS ? EXIT_SUCCESS : EXIT_FAILURE;
}
