/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a simulated file: sparse, in 4 KiB blocks that copies share until one of them
 * writes. So a crash can copy a whole disk in no time, as often as a test likes.
 */
#ifndef SIM_CONTENT_H
#define SIM_CONTENT_H

#include <stddef.h>
#include <stdint.h>

enum { SIM_BLOCK = 4096, SIM_SECTOR = 512 };

struct sim_block;
struct sim_content {
    struct sim_block **blocks; /* NULL: zeros */
    size_t count;
    uint64_t size; /* bytes behind it are kept zero by the functions that set it */
};

/* malloc and calloc for the simulator itself, which must not be failed by what it tests. */
void *sim_allocate(size_t size);

struct sim_content sim_content_clone(const struct sim_content *content);
void sim_content_finish(struct sim_content *content);
/* Writing leaves `size` alone; it may reach beyond. Reading too: zeros. */
void sim_content_write(struct sim_content *content, uint64_t offset, const void *bytes, size_t n);
void sim_content_read(const struct sim_content *content, uint64_t offset, void *bytes, size_t n);
void sim_content_zero(struct sim_content *content, uint64_t offset, uint64_t n);
/* Sets the size; what lay behind it becomes zero. */
void sim_content_resize(struct sim_content *content, uint64_t size);
/* Blocks that are not holes; and how many more a write would need. */
size_t sim_content_blocks(const struct sim_content *content);
size_t sim_content_new_blocks(const struct sim_content *content, uint64_t offset, size_t n);

#endif
