/* SPDX-License-Identifier: Apache-2.0 */
/* A libFuzzer target: any bytes as the text of a program, which runs if it is one. */
#include "hostile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hostile_text((const char *)data, size);
    return 0;
}
