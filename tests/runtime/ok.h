/* SPDX-License-Identifier: Apache-2.0 */
/* A call that must succeed; else the test fails with its detail. After <cmocka.h>. */
#ifndef TESTS_RUNTIME_OK_H
#define TESTS_RUNTIME_OK_H

#include "qallow/error.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        int ok_rc = (call);                                                                        \
        if (ok_rc)                                                                                 \
            fail_msg("%s: %s: %s", #call, qallow_strerror(ok_rc), qallow_error_detail());          \
    } while (0)

#endif
