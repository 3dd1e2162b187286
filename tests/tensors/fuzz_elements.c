/* SPDX-License-Identifier: Apache-2.0 */
/* A libFuzzer target: the body of a CONTENT frame. */
#include "tests/tensors/support.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_to_decode(data, size);
    return 0;
}
