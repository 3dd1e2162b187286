/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tensors: saving a file of which 1 % of the elements have new values, as the first difference from
 * an epoch that is whole, and in a chain, where the base itself is read through differences;
 * getting a file back out of a chain; and deltas between buffers, on the CPU and, where there is
 * one, on a GPU. A machine without a GPU has no such case: it is asked for like a peer (--peers
 * gpu), and left out with one line that says why.
 *
 * `size` is the bytes of the elements.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench/floor.h"
#include "bench/peer.h"
#include "qallow/delta.h"
#include "qallow/store.h"
#include "runtime/device.h"
#include "runtime/os.h"
#include "runtime/store.h"
#include "sources/path.h"
#include "sources/tensor.h"

enum {
    HEADER = 128,
    EVERY = 100,  /* of so many elements one changes */
    EPOCHS = 12,  /* of a chain that something is restored from */
    TICK_MS = 30, /* a file that was just written is not read before (sources/tensor_plan.c) */
};

/* Something like a weight; how many bits of it are random is what matters. */
static uint32_t weight(uint64_t *seed, unsigned width)
{
    uint32_t bits = (uint32_t)qm_random(seed);
    bits = (bits & 0x807fffff) | (0x38 + (bits >> 23 & 7)) << 23;
    return width == 2 ? bits >> 16 : bits;
}

static void change(uint8_t *elements, uint64_t size, unsigned width, uint64_t *seed)
{
    for (uint64_t at = qm_random(seed) % (2 * EVERY) * width; at < size;
         at += (1 + qm_random(seed) % (2 * EVERY - 1)) * width) {
        uint32_t w = weight(seed, width);
        memcpy(elements + at, &w, width);
    }
}

/* --- chains --- */

struct chain {
    struct qr_store *store;
    uint8_t *file;
    size_t length;
    unsigned width;
    uint64_t seed, epoch;
};

/* Written back, too: what the system still has to write is no part of what is measured. */
static int write_file(struct qm_context *context, const char *name)
{
    struct chain *c = context->state;
    const char *path = qm_path(context, name);
    int rc = qm_write_file(path, (const char *)c->file, c->length);
    int fd = rc == 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (rc == 0 && (fd < 0 || fdatasync(fd) != 0))
        rc = qr_fail_errno(errno, "%s", qr_quotez(path));
    if (fd >= 0)
        close(fd);
    return rc;
}

static int save(struct qm_context *context)
{
    struct chain *c = context->state;
    struct qs_tensor_save result;
    int rc = qs_tensors_save(c->store, qm_path(context, "model.safetensors"), QS_SAFETENSORS,
                             (int)context->threads, &result);
    c->epoch = result.epoch;
    return rc;
}

/* The next file. */
static int train(struct qm_context *context)
{
    const struct timespec tick = {.tv_nsec = TICK_MS * 1000000};
    struct chain *c = context->state;
    change(c->file + HEADER, context->size, c->width, &c->seed);
    int rc = write_file(context, "model.safetensors");
    nanosleep(&tick, NULL);
    return rc;
}

static int make_file(struct qm_context *context)
{
    struct chain *c = context->state;
    uint64_t elements = context->size / c->width, length = HEADER - 8;
    c->length = HEADER + context->size;
    int rc = qm_map(c->length, &c->file);
    if (rc < 0)
        return rc;
    memset(c->file, ' ', HEADER);
    memcpy(c->file, &length, 8);
    int n = snprintf((char *)c->file + 8, HEADER - 8,
                     "{\"w\":{\"dtype\":\"%s\",\"shape\":[%llu],\"data_offsets\":[0,%llu]}}",
                     c->width == 2 ? "BF16" : "F32", (unsigned long long)elements,
                     (unsigned long long)context->size);
    c->file[8 + n] = ' ';
    for (uint64_t i = 0; i < elements; i++) {
        uint32_t w = weight(&c->seed, c->width);
        memcpy(c->file + HEADER + i * c->width, &w, c->width);
    }
    return write_file(context, "base");
}

/* A new chain, whose only epoch is the file as it is. */
static int begin_chain(struct qm_context *context)
{
    static const char *const names[] = {"chain.tlog", "chain.tlog-index", "chain.tlog.lock"};
    struct qr_store_options options = {
        .writable = 1, .create = 1, .compress_level = 1, .sync = QR_SYNC_COMMIT};
    struct chain *c = context->state;
    int rc = c->store ? qr_store_close(c->store) : 0;
    c->store = NULL;
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        unlink(qm_path(context, names[i]));
    if (rc == 0)
        rc = qr_store_open(qm_path(context, "chain.tlog"), &options, &c->store);
    return rc == 0 ? save(context) : rc;
}

static int setup(struct qm_context *context)
{
    struct chain *c = context->state = qr_calloc(1, sizeof *c);
    if (!c)
        return qm_no_memory();
    c->width = strstr(context->what->name, "bf16") ? 2 : 4;
    c->seed = 1;
    int rc = make_file(context);
    if (rc == 0)
        rc = train(context);
    return rc == 0 ? begin_chain(context) : rc;
}

static int setup_history(struct qm_context *context)
{
    int rc = setup(context);
    for (int i = 1; i < EPOCHS && rc == 0 && (rc = qm_stopped(context)) == 0; i++) {
        rc = train(context);
        if (rc == 0)
            rc = save(context);
    }
    return rc;
}

static void finish(struct qm_context *context)
{
    struct chain *c = context->state;
    if (!c)
        return;
    if (c->store)
        qr_store_close(c->store);
    qm_unmap(c->file, c->length);
    qr_free(c);
}

/* The next epoch of the chain. */
static int run_save_on(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    int rc = train(context);
    double start = qm_now();
    if (rc == 0)
        rc = save(context);
    *sample = (struct qm_sample){qm_now() - start, (double)context->size};
    return rc;
}

/* The first epoch that is a difference. */
static int run_save(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    int rc = begin_chain(context);
    return rc == 0 ? run_save_on(context, repeats, sample) : rc;
}

static int run_read(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    double start = qm_now();
    int rc = qm_floor_read_file(qm_path(context, "model.safetensors"), NULL, 0);
    if (rc == 0)
        rc = qm_floor_read_file(qm_path(context, "base"), NULL, 0);
    *sample = (struct qm_sample){qm_now() - start, (double)context->size};
    return rc;
}

static int run_restore(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    const struct qs_tensor_restore_options options = {.force = 1, .threads = (int)context->threads};
    struct chain *c = context->state;
    struct qs_tensor_restore result;
    struct qr_state *state = NULL;
    double start = qm_now();
    int rc = qr_store_state_at(c->store, c->epoch, &state);
    if (rc == 0)
        rc = qs_tensors_restore(c->store, state, qm_path(context, "back"), &options, &result);
    qr_state_destroy(state);
    *sample = (struct qm_sample){qm_now() - start, (double)context->size};
    return rc;
}

static int run_write(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct chain *c = context->state;
    const char *path = qm_path(context, "written");
    double start = qm_now();
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int rc = fd >= 0 && qs_write_all(fd, c->file, c->length, 0) == 0 && fdatasync(fd) == 0
                 ? 0
                 : qr_fail_errno(errno, "%s", qr_quotez(path));
    if (fd >= 0)
        close(fd);
    *sample = (struct qm_sample){qm_now() - start, (double)context->size};
    return rc;
}

/* --- deltas between buffers --- */

struct place {
    struct qallow_buffer base, result, delta;
};
struct buffers {
    uint8_t *old, *new_, *room, *copy;
    uint64_t bound, length; /* of a delta */
    struct place cpu, gpu;
    struct qr_device device;
};

static struct qallow_buffer buffer(void *data, uint64_t length, enum qallow_location location)
{
    struct qallow_buffer b = QALLOW_BUFFER_INIT;
    b.data = data;
    b.length = length;
    b.location = location;
    return b;
}

static int setup_buffers(struct qm_context *context)
{
    struct buffers *b = context->state = qr_calloc(1, sizeof *b);
    uint64_t seed = 1, size = context->size;
    if (!b)
        return qm_no_memory();
    int rc = qm_map(size, &b->old);
    if (rc == 0)
        rc = qm_map(size, &b->new_);
    if (rc == 0)
        rc = qm_map(size, &b->copy);
    b->cpu.base = buffer(b->old, size, QALLOW_CPU);
    b->cpu.result = buffer(b->new_, size, QALLOW_CPU);
    if (rc == 0)
        rc = qallow_delta_bound(&b->cpu.base, 1, &b->bound);
    if (rc == 0)
        rc = qm_map(b->bound, &b->room);
    if (rc < 0)
        return rc;
    qm_random_fill(&seed, b->old, size);
    memcpy(b->new_, b->old, size);
    change(b->new_, size, 2, &seed);
    b->cpu.delta = buffer(b->room, b->bound, QALLOW_CPU);
    return qallow_delta_extract(&b->cpu.base, &b->cpu.result, 1, &b->cpu.delta, NULL, &b->length);
}

/* The same on the device. */
static int to_device(struct qr_device *device, const struct qallow_buffer *from,
                     struct qallow_buffer *to)
{
    void *memory = NULL;
    int rc = qr_device_allocate(device, QB_MEMORY_DEVICE, from->length, &memory);
    *to = buffer(memory, from->length, QALLOW_GPU);
    return rc < 0 ? rc : qr_device_upload(device, memory, from->data, from->length);
}

static int setup_gpu(struct qm_context *context)
{
    int rc = setup_buffers(context);
    struct buffers *b = context->state;
    if (rc == 0)
        rc = qr_device_begin(&b->device, NULL);
    if (rc == 0)
        rc = to_device(&b->device, &b->cpu.base, &b->gpu.base);
    if (rc == 0)
        rc = to_device(&b->device, &b->cpu.result, &b->gpu.result);
    return rc < 0 ? rc : to_device(&b->device, &b->cpu.delta, &b->gpu.delta);
}

static void finish_buffers(struct qm_context *context)
{
    struct buffers *b = context->state;
    if (!b)
        return;
    const struct qallow_buffer *const held[] = {&b->gpu.base, &b->gpu.result, &b->gpu.delta};
    for (unsigned i = 0; i < 3; i++)
        if (held[i]->data)
            b->device.runtime->release(b->device.runtime->context, QB_MEMORY_DEVICE, held[i]->data);
    qr_device_end(&b->device);
    qm_unmap(b->old, context->size);
    qm_unmap(b->new_, context->size);
    qm_unmap(b->copy, context->size);
    qm_unmap(b->room, b->bound);
    qr_free(b);
}

static int extract(struct qm_context *context, const struct place *place, uint64_t repeats,
                   struct qm_sample *sample)
{
    uint64_t length;
    double start = qm_now();
    int rc = 0;
    for (uint64_t i = 0; i < repeats && rc == 0; i++)
        rc = qallow_delta_extract(&place->base, &place->result, 1, &place->delta, NULL, &length);
    *sample = (struct qm_sample){qm_now() - start, (double)(repeats * context->size)};
    return rc;
}

/* There and back: two deltas are applied. */
static int apply(struct qm_context *context, const struct place *place, uint64_t repeats,
                 struct qm_sample *sample)
{
    const struct buffers *b = context->state;
    double start = qm_now();
    int rc = 0;
    for (uint64_t i = 0; i < repeats && rc == 0; i++) {
        rc = qallow_delta_apply(&place->base, 1, &place->delta, b->length, NULL);
        if (rc == 0)
            rc = qallow_delta_undo(&place->base, 1, &place->delta, b->length, NULL);
    }
    *sample = (struct qm_sample){qm_now() - start, 2 * (double)(repeats * context->size)};
    return rc;
}

#define ON(name, what, where)                                                                      \
    static int name(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)        \
    {                                                                                              \
        return what(context, &((struct buffers *)context->state)->where, repeats, sample);         \
    }
ON(extract_cpu, extract, cpu)
ON(extract_gpu, extract, gpu)
ON(apply_cpu, apply, cpu)
ON(apply_gpu, apply, gpu)

static int run_copy(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    const struct buffers *b = context->state;
    double start = qm_now();
    for (uint64_t i = 0; i < repeats; i++) {
        memcpy(b->copy, b->old, context->size);
        qm_keep(b->copy);
    }
    *sample = (struct qm_sample){qm_now() - start, (double)(repeats * context->size)};
    return 0;
}

static int find_gpu(char *text, size_t size)
{
    struct qb_device_info info;
    int found = qr_device_describe(&info) == 0;
    snprintf(text, size, "%s", found ? info.name : qallow_error_detail());
    return found;
}

const struct qm_peer qm_gpu = {"gpu", NULL, find_gpu};

static const struct qm_work saving = {setup, run_save, run_read, finish};
static const struct qm_work saving_on = {setup_history, run_save_on, run_read, finish};
static const struct qm_work restoring = {setup_history, run_restore, run_write, finish};
static const struct qm_work extracting = {setup_buffers, extract_cpu, run_copy, finish_buffers};
static const struct qm_work applying = {setup_buffers, apply_cpu, run_copy, finish_buffers};
static const struct qm_work extracting_there = {setup_gpu, extract_gpu, extract_cpu,
                                                finish_buffers};
static const struct qm_work applying_there = {setup_gpu, apply_gpu, apply_cpu, finish_buffers};

/* clang-format off */
#define MIB (UINT64_C(1) << 20)
#define SAVE "An epoch of a safetensors file of which 1 % of the elements have new values, " \
             "synced, "
#define READ "; beside reading the file and as much once, from the page cache."
#define FIRST SAVE "the first one behind a whole one" READ
#define EXTRACT "A delta between two contents, 1 % of whose elements of 2 bytes differ, with the " \
                "digests of both"
#define APPLY "A delta of 1 % of the elements of 2 bytes applied, and undone: digests before and " \
              "after; the bytes of the content count"
const struct qm_case qm_tensor_cases[] = {
    {"tensor/save-bf16", "save 1 % of BF16", "read file and base", FIRST,
     &qm_gb_s, {QM_RATIO, 0.67}, &saving, .size = 256 * MIB, .smoke_size = 8 * MIB, .fixed = 1},
    {"tensor/save-f32", "save 1 % of F32", "read file and base", FIRST,
     &qm_gb_s, {QM_RATIO, 0.67}, &saving, .size = 256 * MIB, .smoke_size = 8 * MIB, .fixed = 1},
    {"tensor/save-bf16-chain", "save 1 % of BF16 in a chain", "read file and base",
     SAVE "the 13th of a chain and those behind it: the base is read through 11 differences and "
     "more" READ,
     &qm_gb_s, {QM_NOTHING, 0}, &saving_on, .size = 256 * MIB, .smoke_size = 8 * MIB, .fixed = 1},
    {"tensor/restore-bf16", "restore an epoch of BF16", "file write",
     "The newest of 12 epochs written to a file, verified and synced; beside a file of the "
     "same length, synced.",
     &qm_gb_s, {QM_RATIO, 0.4}, &restoring, .size = 256 * MIB, .smoke_size = 8 * MIB, .fixed = 1},
    {"tensor/extract", "extract a 1 % delta", "memcpy", EXTRACT "; beside a copy of one of them.",
     &qm_gb_s, {QM_NOTHING, 0}, &extracting, .size = 64 * MIB, .smoke_size = 4 * MIB},
    {"tensor/apply", "apply a 1 % delta", "memcpy", APPLY "; beside a copy of it.",
     &qm_gb_s, {QM_NOTHING, 0}, &applying, .size = 64 * MIB, .smoke_size = 4 * MIB},
    {"gpu/extract", "extract a 1 % delta on the GPU", "CPU", EXTRACT ", on the GPU; beside the "
     "same on the CPU.", &qm_gb_s, {QM_NOTHING, 0}, &extracting_there, .size = 256 * MIB,
     .smoke_size = 4 * MIB, .peer = &qm_gpu},
    {"gpu/apply", "apply a 1 % delta on the GPU", "CPU", APPLY ", on the GPU; beside the same on "
     "the CPU.", &qm_gb_s, {QM_NOTHING, 0}, &applying_there, .size = 256 * MIB,
     .smoke_size = 4 * MIB, .peer = &qm_gpu},
    {0},
};
