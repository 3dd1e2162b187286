/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A CUDA driver for machines that have none: FAKE_CUDA=N gives N devices, FAKE_CUDA=-E the error E
 * from its start.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT int cuInit(unsigned flags);
EXPORT int cuDriverGetVersion(int *version);
EXPORT int cuDeviceGetCount(int *count);
EXPORT int cuDeviceGet(int *device, int ordinal);
EXPORT int cuDeviceGetName(char *name, int size, int device);
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device);
EXPORT int cuDeviceTotalMem_v2(size_t *bytes, int device);
EXPORT int cuGetErrorString(int error, const char **text);

static int asked(void)
{
    const char *text = getenv("FAKE_CUDA");
    return text ? (int)strtol(text, NULL, 10) : 0;
}

int cuInit(unsigned flags) { return asked() < 0 ? -asked() : 0; }

int cuDriverGetVersion(int *version)
{
    *version = 12040;
    return 0;
}

int cuDeviceGetCount(int *count)
{
    *count = asked();
    return 0;
}

int cuDeviceGet(int *device, int ordinal)
{
    *device = ordinal;
    return 0;
}

int cuDeviceGetName(char *name, int size, int device)
{
    snprintf(name, (size_t)size, "Fake %d", device);
    return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    *value = attribute == 75 ? 9 : 0;
    return 0;
}

int cuDeviceTotalMem_v2(size_t *bytes, int device)
{
    *bytes = (size_t)80 << 30;
    return 0;
}

int cuGetErrorString(int error, const char **text)
{
    *text = "the fake is broken";
    return 0;
}
