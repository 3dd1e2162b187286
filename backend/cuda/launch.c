/* SPDX-License-Identifier: Apache-2.0 */
/* From the number of an operation to its launch. */
#include "backend/cuda/launch.h"

#include "backend/cuda/operations.h"

#define DECLARE(name, shared, groups, locate, phases)                                              \
    int qb_cuda_##name(const struct qb_batch *batch, void *stream);
QB_EACH_OPERATION(DECLARE)

/* In the order of enum qb_operation. */
#define ROW(name, shared, groups, locate, phases) {#name, qb_cuda_##name},
static const struct {
    const char *name;
    int (*launch)(const struct qb_batch *batch, void *stream);
} operations[] = {QB_EACH_OPERATION(ROW)};
_Static_assert(sizeof operations / sizeof operations[0] == QB_OPERATIONS, "one row for each");

int qb_cuda_launch(enum qb_operation operation, const struct qb_batch *batch, void *stream)
{
    return operations[operation].launch(batch, stream);
}

const char *qb_cuda_operation_name(enum qb_operation operation)
{
    return operations[operation].name;
}
