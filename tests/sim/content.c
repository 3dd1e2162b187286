/* SPDX-License-Identifier: Apache-2.0 */
/* See content.h. A block with more than one reference is never written, only replaced. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "content.h"

struct sim_block {
    atomic_uint references;
    uint8_t bytes[SIM_BLOCK];
};

void *sim_allocate(size_t size)
{
    void *memory = calloc(1, size ? size : 1);
    if (!memory)
        abort();
    return memory;
}

static void release(struct sim_block *block)
{
    if (block && atomic_fetch_sub(&block->references, 1) == 1)
        free(block);
}

struct sim_content sim_content_clone(const struct sim_content *content)
{
    struct sim_content copy = *content;
    copy.blocks = sim_allocate(content->count * sizeof *copy.blocks);
    for (size_t i = 0; i < content->count; i++) {
        copy.blocks[i] = content->blocks[i];
        if (copy.blocks[i])
            atomic_fetch_add(&copy.blocks[i]->references, 1);
    }
    return copy;
}

void sim_content_finish(struct sim_content *content)
{
    for (size_t i = 0; i < content->count; i++)
        release(content->blocks[i]);
    free(content->blocks);
    memset(content, 0, sizeof *content);
}

/* The block with this number, to be written: ours alone. */
static uint8_t *own_block(struct sim_content *content, size_t number)
{
    if (number >= content->count) {
        size_t count = number + number / 2 + 16;
        content->blocks = realloc(content->blocks, count * sizeof *content->blocks);
        if (!content->blocks)
            abort();
        memset(content->blocks + content->count, 0,
               (count - content->count) * sizeof *content->blocks);
        content->count = count;
    }
    struct sim_block *old = content->blocks[number];
    if (!old || atomic_load(&old->references) > 1) {
        struct sim_block *block = sim_allocate(sizeof *block);
        atomic_init(&block->references, 1);
        if (old)
            memcpy(block->bytes, old->bytes, SIM_BLOCK);
        release(old);
        content->blocks[number] = block;
    }
    return content->blocks[number]->bytes;
}

/* How much of [offset, offset + n) lies in the block of offset. */
static size_t part(uint64_t offset, uint64_t n)
{
    uint64_t room = SIM_BLOCK - offset % SIM_BLOCK;
    return (size_t)(n < room ? n : room);
}

void sim_content_write(struct sim_content *content, uint64_t offset, const void *bytes, size_t n)
{
    for (const uint8_t *from = bytes; n > 0;) {
        size_t length = part(offset, n);
        memcpy(own_block(content, offset / SIM_BLOCK) + offset % SIM_BLOCK, from, length);
        from += length;
        offset += length;
        n -= length;
    }
}

void sim_content_read(const struct sim_content *content, uint64_t offset, void *bytes, size_t n)
{
    for (uint8_t *to = bytes; n > 0;) {
        size_t length = part(offset, n), number = offset / SIM_BLOCK;
        if (number < content->count && content->blocks[number])
            memcpy(to, content->blocks[number]->bytes + offset % SIM_BLOCK, length);
        else
            memset(to, 0, length);
        to += length;
        offset += length;
        n -= length;
    }
}

void sim_content_zero(struct sim_content *content, uint64_t offset, uint64_t n)
{
    uint64_t end = (uint64_t)content->count * SIM_BLOCK;
    if (n > end || offset > end - n)
        n = offset < end ? end - offset : 0;
    while (n > 0) {
        size_t length = part(offset, n), number = offset / SIM_BLOCK;
        if (length == SIM_BLOCK) {
            release(content->blocks[number]);
            content->blocks[number] = NULL;
        } else if (content->blocks[number]) {
            memset(own_block(content, number) + offset % SIM_BLOCK, 0, length);
        }
        offset += length;
        n -= length;
    }
}

void sim_content_resize(struct sim_content *content, uint64_t size)
{
    sim_content_zero(content, size, UINT64_MAX);
    content->size = size;
}

size_t sim_content_blocks(const struct sim_content *content)
{
    size_t blocks = 0;
    for (size_t i = 0; i < content->count; i++)
        blocks += content->blocks[i] != NULL;
    return blocks;
}

size_t sim_content_new_blocks(const struct sim_content *content, uint64_t offset, size_t n)
{
    size_t blocks = 0;
    for (uint64_t i = offset / SIM_BLOCK; n > 0 && i <= (offset + n - 1) / SIM_BLOCK; i++)
        blocks += i >= content->count || !content->blocks[i];
    return blocks;
}
