/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device that is not there: the operations of backend/cuda/ run on the CPU, phase by phase for
 * one thread after the other; its memory is ordinary memory, so that sanitizers see every access,
 * but what is the device's cannot be taken for the CPU's: emulated_owns() knows. Calls can be made
 * to fail.
 */
#ifndef EMULATED_H
#define EMULATED_H

#include <stdbool.h>

#include "backend/device.h"

enum emulated_call {
    EMULATED_DESCRIBE,
    EMULATED_ALLOCATE,
    EMULATED_COPY,
    EMULATED_FILL,
    EMULATED_PREFETCH,
    EMULATED_LAUNCH,
    EMULATED_SCAN,
    EMULATED_STREAM,
    EMULATED_WAIT,
    EMULATED_ANY, /* all of them count */
    EMULATED_CALLS
};

/* Runs one operation at once. */
void emulated_run(enum qb_operation operation, const struct qb_batch *batch);
/* An exclusive sum in place. */
void emulated_scan(struct qb_counts *counts, uint64_t count);

/* The table; there is one device. */
const struct qb_runtime *emulated_runtime(void);
/* The n-th call from now (1: the next) of this kind gives `result`; with QB_LOST all later ones do
 * too. n == 0: none fails. */
void emulated_fail(enum emulated_call call, unsigned long n, enum qb_result result);
/* The number of calls of a kind since the last emulated_fail(). */
unsigned long emulated_count(enum emulated_call call);
/* Bytes that are allocated, and what was copied between CPU and device. */
uint64_t emulated_allocated(void);
uint64_t emulated_bus_bytes(void);
/* Whether the byte lies in memory that allocate() gave. */
bool emulated_owns(const void *p);
/* How much there is in all. */
void emulated_set_memory(uint64_t bytes);

#endif
