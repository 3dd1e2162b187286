/* SPDX-License-Identifier: Apache-2.0 */
/* A libFuzzer target: the header of a file of tensors. The first byte says of which format, the
 * second how many bytes of data follow it. What is accepted must cover the file. */
#include <stdlib.h>

#include "sources/tensor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct qs_tensors tensors;
    struct qs_shards shards;
    if (size < 2)
        return 0;
    enum qs_tensor_format format = data[0] & 1 ? QS_NPY : QS_SAFETENSORS;
    uint64_t end = size - 2 + data[1];
    if (data[0] & 2) {
        if (qs_shards_parse((const char *)data + 2, size - 2, "fuzz", &shards) == 0)
            qs_shards_finish(&shards);
        return 0;
    }
    uint8_t *bytes = calloc(1, size + 16); /* as readers have it, who read 16 bytes first */
    for (size_t i = 2; i < size; i++)
        bytes[i - 2] = data[i];
    if (qs_tensors_parse(bytes, size - 2, "fuzz", end, format, &tensors) == 0) {
        uint64_t at = tensors.header_length;
        for (size_t i = 0; i < tensors.count; i++) {
            if (tensors.items[i].begin != at || tensors.items[i].end < at)
                abort();
            at = tensors.items[i].end;
        }
        if (at != end)
            abort();
        qs_tensors_finish(&tensors);
    }
    free(bytes);
    return 0;
}
