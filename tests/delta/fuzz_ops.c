/* SPDX-License-Identifier: Apache-2.0 */
/* A libFuzzer target: the first two bytes are the size of the old content, the rest are operations.
 * What is valid must be valid for both implementations and give the same bytes. */
#include "tests/delta/support.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct bytes old = bytes_new((size_t)(data[0] | (data[1] & 15) << 8));
    for (size_t i = 0; i < old.n; i++)
        old.p[i] = (uint8_t)(i * 37);
    struct bytes ops = bytes_copy(data + 2, size - 2);
    check_operations(&ops, &old);
    bytes_free(&ops);
    bytes_free(&old);
    return 0;
}
