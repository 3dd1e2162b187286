/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probes of the machine: finding written pages (userfaultfd, PAGEMAP_SCAN), the processor's
 * kernels, the CUDA driver. Nothing here stops a keeper.
 *
 * Headers older than Linux 6.7 have no PAGEMAP_SCAN and not all features of userfaultfd, so what is
 * used of them is written down here. The CUDA driver is loaded when it is asked for: no build needs
 * its headers.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "accelerator/capability_internal.h"

/* --- written pages --- */

enum {
    USER_MODE_ONLY = 1,
    FEATURE_WP_UNPOPULATED = 1 << 13,
    FEATURE_WP_ASYNC = 1 << 15,
    PAGES = 4,
    WRITTEN_PAGE = 2,
};
#define SCAN_WP_MATCHING    UINT64_C(1)
#define SCAN_CHECK_WP_ASYNC UINT64_C(2)
#define IS_WRITTEN          UINT64_C(2)

struct region {
    uint64_t start, end, categories;
};
struct scan { /* struct pm_scan_arg of linux/fs.h */
    uint64_t size, flags, start, end, walk_end, regions, region_count, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN_REQUEST _IOWR('f', 16, struct scan)

/* A descriptor with these features, or -1 with errno. *has: all that the kernel knows. */
static int open_userfaultfd(uint64_t features, uint64_t *has)
{
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY);
    if (fd < 0)
        return -1;
    if (ioctl(fd, UFFDIO_API, &api) < 0) {
        int err = errno;
        close(fd);
        errno = err;
        return -1;
    }
    *has = api.features;
    return fd;
}

void qa_probe_userfaultfd(struct qa_capability *found)
{
    uint64_t has = 0;
    int fd = open_userfaultfd(0, &has);
    if (fd < 0) {
        qa_found(found, QA_WARN, QALLOW_E_UNAVAILABLE,
                 errno == ENOSYS
                     ? "use a kernel with CONFIG_USERFAULTFD"
                     : "allow the system call userfaultfd, which a container or sandbox "
                       "may forbid",
                 "cannot be used: %s; written pages of memory are found by comparing them",
                 strerror(errno));
        return;
    }
    close(fd);
    if (has & FEATURE_WP_ASYNC && has & FEATURE_WP_UNPOPULATED)
        qa_found(found, QA_PASS, 0, NULL,
                 "works, with asynchronous write protection (features "
                 "%#llx)",
                 (unsigned long long)has);
    else
        qa_found(found, QA_WARN, QALLOW_E_UNAVAILABLE, "use Linux 6.7 or later",
                 "works, without asynchronous write protection (features %#llx): written pages of "
                 "memory are found by comparing them",
                 (unsigned long long)has);
}

/* Protects the pages, writes one, and asks which one was written. The answer's first region in
 * *region and the number of regions, or -1 with errno. */
static int scan_after_a_write(int fd, char *pages, size_t page, struct region *region)
{
    struct uffdio_register registration = {.range = {(uintptr_t)pages, PAGES * page},
                                           .mode = UFFDIO_REGISTER_MODE_WP};
    struct scan scan = {.size = sizeof scan,
                        .flags = SCAN_WP_MATCHING | SCAN_CHECK_WP_ASYNC,
                        .start = (uintptr_t)pages,
                        .end = (uintptr_t)pages + PAGES * page,
                        .regions = (uintptr_t)region,
                        .region_count = 1,
                        .category_mask = IS_WRITTEN,
                        .return_mask = IS_WRITTEN};
    if (ioctl(fd, UFFDIO_REGISTER, &registration) < 0)
        return -1;
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap < 0)
        return -1;
    int regions = ioctl(pagemap, SCAN_REQUEST, &scan);
    if (regions >= 0) {
        *(volatile char *)(pages + WRITTEN_PAGE * page) = 1;
        scan.flags = SCAN_CHECK_WP_ASYNC;
        regions = ioctl(pagemap, SCAN_REQUEST, &scan);
    }
    int err = errno;
    close(pagemap);
    errno = err;
    return regions;
}

void qa_probe_pagemap_scan(struct qa_capability *found)
{
    struct region region = {0};
    uint64_t has;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    int regions = -1;
    int fd = open_userfaultfd(FEATURE_WP_ASYNC | FEATURE_WP_UNPOPULATED, &has);
    char *pages =
        mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages != MAP_FAILED && fd >= 0)
        regions = scan_after_a_write(fd, pages, page, &region);
    int err = errno;
    uint64_t expected = (uintptr_t)pages + WRITTEN_PAGE * page;
    if (regions < 0)
        qa_found(found, QA_WARN, QALLOW_E_UNAVAILABLE, "use Linux 6.7 or later",
                 "cannot be used: %s; written pages of memory are found by comparing them",
                 strerror(err));
    else if (regions != 1 || region.start != expected || region.end != expected + page)
        qa_found(found, QA_WARN, QALLOW_E_UNAVAILABLE, "report this kernel's version",
                 "gives a wrong answer: written pages of memory are found by comparing them");
    else
        qa_found(found, QA_PASS, 0, NULL, "finds the page that was written");
    if (pages != MAP_FAILED)
        munmap(pages, PAGES * page);
    if (fd >= 0)
        close(fd);
}

/* --- the processor --- */

void qa_probe_cpu(const struct qb_kernels *kernels, struct qa_capability *found)
{
    struct qb_kernels scalar;
    struct qb_run runs[2][16];
    uint8_t a[1000], b[1000];
    uint32_t flags = qb_cpu_detect();
    size_t scanned[2], counts[2];
    qb_kernels_init(&scalar, 0);
    for (size_t i = 0; i < sizeof a; i++)
        a[i] = b[i] = (uint8_t)(i * i >> 3);
    for (size_t i = 5; i < sizeof a; i += 97)
        b[i] ^= 0x40;
    memset(runs, 0, sizeof runs);
    counts[0] = scalar.diff_runs(a, b, sizeof a, 1, runs[0], 16, &scanned[0]);
    counts[1] = kernels->diff_runs(a, b, sizeof a, 1, runs[1], 16, &scanned[1]);
    if (counts[0] != counts[1] || memcmp(runs[0], runs[1], sizeof runs[0]) != 0 ||
        !qb_u128_equal(scalar.hash_cells(a, sizeof a, 1, 0),
                       kernels->hash_cells(a, sizeof a, 1, 0)))
        qa_found(found, QA_FAIL, QALLOW_E_UNAVAILABLE, "set QALLOW_CPU_MASK=scalar, and report it",
                 "the %s kernels compute something else than the scalar ones: this processor or "
                 "its emulation is broken",
                 kernels->name);
    else
        qa_found(found, QA_PASS, 0, NULL, "%s%s; kernels in use: %s",
                 flags & QB_CPU_AVX2 ? "AVX2" : "no AVX2", flags & QB_CPU_AVX512 ? ", AVX-512" : "",
                 kernels->name);
}

/* --- CUDA --- */

/* The functions of the driver that are asked, by the names of its own interface. */
struct cuda {
    int (*init)(unsigned flags);
    int (*version)(int *version);
    int (*count)(int *count);
    int (*device)(int *device, int ordinal);
    int (*name)(char *name, int size, int device);
    int (*attribute)(int *value, int attribute, int device);
    int (*memory)(size_t *bytes, int device);
    int (*error)(int error, const char **text);
};
enum { CUDA_NO_DEVICE = 100, CUDA_MAJOR = 75, CUDA_MINOR = 76 };

static int load_cuda(void *library, struct cuda *cuda)
{
    const struct {
        const char *name;
        void *slot;
    } functions[] = {
        {"cuInit", &cuda->init},
        {"cuDriverGetVersion", &cuda->version},
        {"cuDeviceGetCount", &cuda->count},
        {"cuDeviceGet", &cuda->device},
        {"cuDeviceGetName", &cuda->name},
        {"cuDeviceGetAttribute", &cuda->attribute},
        {"cuDeviceTotalMem_v2", &cuda->memory},
        {"cuGetErrorString", &cuda->error},
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *address = dlsym(library, functions[i].name);
        if (!address)
            return 0;
        memcpy(functions[i].slot, &address, sizeof address);
    }
    return 1;
}

/* "; NVIDIA H200 (9.0, 139.8 GiB)" for each device. */
static void list_devices(const struct cuda *cuda, int count, char *text, size_t size)
{
    size_t used = 0;
    for (int i = 0; i < count && used < size; i++) {
        int device, major = 0, minor = 0;
        char name[128] = "?", memory[QA_SIZE_TEXT];
        size_t bytes = 0;
        if (cuda->device(&device, i) != 0 || cuda->name(name, sizeof name, device) != 0 ||
            cuda->attribute(&major, CUDA_MAJOR, device) != 0 ||
            cuda->attribute(&minor, CUDA_MINOR, device) != 0 || cuda->memory(&bytes, device) != 0)
            snprintf(name, sizeof name, "a device that gives no answer");
        int n = snprintf(text + used, size - used, "; %s (%d.%d, %s)", name, major, minor,
                         qa_size_text(bytes, memory));
        used += n < 0 ? 0 : (size_t)n;
    }
}

static void ask_cuda(const struct cuda *cuda, struct qa_capability *found)
{
    char devices[320] = "";
    const char *why = NULL;
    int version = 0, count = 0, err = cuda->init(0);
    if (err == 0)
        err = cuda->count(&count);
    if (err != 0 && err != CUDA_NO_DEVICE) {
        if (cuda->error(err, &why) != 0 || !why)
            why = "unknown error";
        qa_found(found, QA_WARN, QALLOW_E_UNAVAILABLE,
                 "see what nvidia-smi says; the driver's library and kernel module must match",
                 "the driver does not start: %s (%d); pages are kept on the CPU", why, err);
        return;
    }
    cuda->version(&version);
    list_devices(cuda, count, devices, sizeof devices);
    qa_found(found, QA_PASS, 0, NULL,
             "driver for CUDA %d.%d, %d device%s%s; pages are kept on the "
             "CPU",
             version / 1000, version % 1000 / 10, count, count == 1 ? "" : "s", devices);
}

void qa_probe_cuda(struct qa_capability *found)
{
    struct cuda cuda;
    void *library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (!library)
        qa_found(found, QA_PASS, 0, NULL,
                 "no driver (libcuda.so.1) here, and none is needed: pages are kept on the CPU");
    else if (!load_cuda(library, &cuda))
        qa_found(found, QA_WARN, QALLOW_E_UNAVAILABLE, "install a driver for CUDA 11 or later",
                 "the driver is too old; pages are kept on the CPU");
    else
        ask_cuda(&cuda, found); /* and leaves it loaded: it may have threads by now */
}
