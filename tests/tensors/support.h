/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of elements and their fuzz targets share. */
#ifndef TEST_TENSORS_SUPPORT_H
#define TEST_TENSORS_SUPPORT_H

#include "runtime/elements.h"

/* Decodes a body that nobody vouches for, over `base` bytes of zeros: 1 if it is valid. Whatever it
 * is, nothing outside of the buffers is touched; that is for the sanitizers to see. */
int try_to_decode(const uint8_t *body, size_t size);

#endif
