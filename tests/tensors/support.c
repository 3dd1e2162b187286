/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of elements and their fuzz targets share. */
#include "tests/tensors/support.h"

#include <stdlib.h>
#include <string.h>

int try_to_decode(const uint8_t *body, size_t size)
{
    struct qr_elements elements;
    struct qr_elements_scratch scratch = {.bytes = NULL};
    uint8_t *own = malloc(size + 1); /* exactly as long, so that a byte too far is seen */
    memcpy(own, body, size);
    int rc = qr_elements_parse(own, size, &elements);
    if (rc == 0) {
        uint8_t *content = calloc(1, elements.length);
        rc = qr_elements_decode(&elements, content, &scratch);
        free(content);
    }
    qr_elements_scratch_finish(&scratch);
    free(own);
    return rc == 0;
}
