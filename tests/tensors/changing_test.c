/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that change while they are saved, and two producers on one chain. The log's own table of
 * the system calls back in the middle of a save, between one chunk of the file and the next, so
 * that each change comes at the same point in every run. Whatever happens: one clear line, BUSY,
 * and the chain as it was; afterwards the file is saved as if nothing had been.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/error.h"
#include "runtime/store.h"
#include "sources/tensor.h"

#include <cmocka.h>

enum { DATA = 3 << 20, HEADER = 96, SIZE = 8 + HEADER + DATA };

static struct {
    char model[64], other[64], index[64], log[64], back[64];
} paths;
static char directory[] = "/tmp/qallow-changing-XXXXXX";
static struct qr_os os;
/* Done once, at the next read of the log, which all threads wait for: so a worker has read one
 * chunk of the file at most. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void (*meddle)(void);

static int64_t meddling_pread(void *context, int file, void *buffer, size_t length, uint64_t offset)
{
    pthread_mutex_lock(&lock);
    if (meddle)
        meddle();
    meddle = NULL;
    pthread_mutex_unlock(&lock);
    return qr_os_posix()->pread(context, file, buffer, length, offset);
}

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        int result_ = (call);                                                                      \
        if (result_ != 0)                                                                          \
            fail_msg("%s: %d: %s", #call, result_, qallow_error_detail());                         \
    } while (0)

/* --- files --- */

static void put(const char *path, const void *bytes, size_t length, off_t at)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, length, at), length);
    assert_int_equal(close(fd), 0);
}

/* A whole file, whose elements follow from `seed`. */
static void put_model(const char *path, const char *tensor, unsigned seed)
{
    uint8_t *bytes = malloc(SIZE);
    uint64_t length = HEADER;
    char header[HEADER + 1];
    assert_non_null(bytes);
    int n = snprintf(header, sizeof header,
                     "{\"%s\":{\"dtype\":\"F32\",\"shape\":[%d],\"data_offsets\":[0,%d]}}", tensor,
                     DATA / 4, DATA);
    assert_true(n > 0 && n <= HEADER);
    memset(header + n, ' ', (size_t)(HEADER - n));
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, header, HEADER);
    for (size_t i = 0; i < DATA; i++)
        bytes[8 + HEADER + i] = (uint8_t)(i * 2654435761u >> 13) ^ (i % 997 == 0 ? seed : 0);
    put(path, bytes, SIZE, 0);
    free(bytes);
}

static uint8_t *get(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    uint8_t *bytes = malloc(2 * SIZE);
    assert_non_null(bytes);
    *length = fread(bytes, 1, 2 * SIZE, file);
    fclose(file);
    return bytes;
}

static void assert_same_file(const char *a, const char *b)
{
    size_t lengths[2];
    uint8_t *x = get(a, &lengths[0]), *y = get(b, &lengths[1]);
    assert_int_equal(lengths[0], lengths[1]);
    assert_memory_equal(x, y, lengths[0]);
    free(x);
    free(y);
}

/* --- the changes --- */

static void overwrite_one_byte(void) { put(paths.model, "\x5a", 1, SIZE - 1); }
static void append(void) { put(paths.model, "more", 4, SIZE); }
static void shorten(void) { assert_int_equal(truncate(paths.model, SIZE - DATA / 2), 0); }
static void replace(void)
{
    put_model(paths.back, "w", 77);
    assert_int_equal(rename(paths.back, paths.model), 0);
}
static void change_shard(void) { put(paths.other, "\x5a", 1, SIZE - 1); }

/* --- saving --- */

static struct qr_store *open_chain(void)
{
    struct qr_store_options options = {
        .os = &os, .writable = 1, .create = 1, .sync = QR_SYNC_NONE, .compress_level = 1};
    struct qr_store *store;
    assert_ok(qr_store_open(paths.log, &options, &store));
    return store;
}

/* A chain with one epoch of the model. */
static struct qr_store *new_chain(const char *path, enum qs_tensor_format format)
{
    struct qs_tensor_save result;
    unlink(paths.log);
    struct qr_store *store = open_chain();
    assert_ok(qs_tensors_save(store, path, format, 1, &result));
    assert_int_equal(result.epoch, 1);
    return store;
}

static void assert_restores(struct qr_store *store, uint64_t epoch)
{
    struct qs_tensor_restore_options options = {.force = 1, .threads = 2};
    struct qs_tensor_restore result;
    struct qr_state *state;
    assert_ok(qr_store_state_at(store, epoch, &state));
    assert_ok(qs_tensors_restore(store, state, paths.back, &options, &result));
    qr_state_destroy(state);
    assert_same_file(paths.back, paths.model);
}

static void refuses(struct qr_store *store, const char *path, enum qs_tensor_format format,
                    int threads, void (*change)(void), const char *said)
{
    struct qs_tensor_save result;
    struct qb_u128 before = qr_state_digest(qr_store_state(store));
    meddle = change;
    assert_int_equal(qs_tensors_save(store, path, format, threads, &result), QALLOW_E_BUSY);
    assert_null(meddle);
    assert_string_equal(qallow_error_detail(), said);
    assert_int_equal(qr_state_epoch(qr_store_state(store)), 1);
    assert_true(qb_u128_equal(qr_state_digest(qr_store_state(store)), before));
}

static void a_change_refuses(void (*change)(void), const char *why)
{
    char said[200];
    snprintf(said, sizeof said, "%s %s while it was read; try again", paths.model, why);
    for (int threads = 1; threads <= 3; threads++) {
        struct qs_tensor_save result;
        struct stat st;
        put_model(paths.model, "w", 1);
        assert_int_equal(truncate(paths.model, SIZE), 0);
        struct qr_store *store = new_chain(paths.model, QS_SAFETENSORS);
        assert_restores(store, 1);
        put_model(paths.model, "w", 2);
        refuses(store, paths.model, QS_SAFETENSORS, threads, change, said);
        assert_ok(qr_store_close(store));
        store = open_chain(); /* what is on the disk is the first epoch, too */
        assert_int_equal(qr_state_epoch(qr_store_state(store)), 1);
        assert_int_equal(stat(paths.model, &st), 0);
        if (st.st_size != SIZE) /* no such file any more */
            put_model(paths.model, "w", 3);
        assert_int_equal(truncate(paths.model, SIZE), 0);
        assert_ok(qs_tensors_save(store, paths.model, QS_SAFETENSORS, threads, &result));
        assert_int_equal(result.epoch, 2);
        assert_restores(store, 2);
        assert_ok(qr_store_close(store));
    }
}

static void overwritten(void **context)
{
    a_change_refuses(overwrite_one_byte, "changed");
    (void)context;
}
static void appended(void **context)
{
    a_change_refuses(append, "changed");
    (void)context;
}
static void shortened(void **context)
{
    a_change_refuses(shorten, "became shorter");
    (void)context;
}
static void replaced(void **context)
{
    a_change_refuses(replace, "changed");
    (void)context;
}

/* A shard that was read already is another one when the last one has been read. */
static void shard_changed(void **context)
{
    static const char index[] = "{\"weight_map\":{\"v\":\"model.safetensors\","
                                "\"w\":\"other.safetensors\"}}";
    char said[200];
    snprintf(said, sizeof said, "%s changed while it was read; try again", paths.other);
    put_model(paths.model, "v", 1);
    put_model(paths.other, "w", 2);
    put(paths.index, index, sizeof index - 1, 0);
    struct qr_store *store = new_chain(paths.index, QS_SAFETENSORS_INDEX);
    put_model(paths.model, "v", 3);
    refuses(store, paths.index, QS_SAFETENSORS_INDEX, 2, change_shard, said);
    assert_ok(qr_store_close(store));
    (void)context;
}

/* A .npy file whose header is of version 1 at one moment and of version 2, which is longer, at the
 * next. Whatever is made of it: nothing behind its bytes is looked at (for the sanitizers). */
static void *flip_version(void *context)
{
    int *stop = context;
    for (unsigned i = 0; !__atomic_load_n(stop, __ATOMIC_RELAXED); i++)
        put(paths.model, i % 2 ? "\1" : "\2", 1, 6);
    return NULL;
}

static void header_changed(void **context)
{
    pthread_t thread;
    int stop = 0;
    put(paths.model, "\x93NUMPY\1\0\0\0\0\0\0\0\0\0", 16, 0);
    int fd = open(paths.model, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pthread_create(&thread, NULL, flip_version, &stop), 0);
    for (int i = 0; i < 3000; i++) {
        struct qs_tensors tensors;
        if (qs_tensors_read(fd, "x.npy", 16, QS_NPY, &tensors) == 0)
            qs_tensors_finish(&tensors);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    close(fd);
    unlink(paths.model);
    (void)context;
}

/* Who comes second is told who is first, and nothing else happens; when the first is gone, it
 * goes on where that one was. */
static void second_producer(void **context)
{
    struct qr_store_options options = {.os = &os, .writable = 1, .create = 1};
    struct qr_store *second = NULL;
    struct qs_tensor_save result;
    char said[200];
    put_model(paths.model, "w", 1);
    struct qr_store *first = new_chain(paths.model, QS_SAFETENSORS);
    assert_int_equal(qr_store_open(paths.log, &options, &second), QALLOW_E_BUSY);
    snprintf(said, sizeof said, "process %d is recording to it", (int)getpid());
    assert_non_null(strstr(qallow_error_detail(), said));
    put_model(paths.model, "w", 2);
    assert_ok(qs_tensors_save(first, paths.model, QS_SAFETENSORS, 1, &result));
    assert_ok(qr_store_close(first));
    second = open_chain();
    assert_restores(second, 2);
    put_model(paths.model, "w", 3);
    assert_ok(qs_tensors_save(second, paths.model, QS_SAFETENSORS, 1, &result));
    assert_int_equal(result.epoch, 3);
    assert_restores(second, 3);
    assert_ok(qr_store_close(second));
    (void)context;
}

/* --- */

static int begin(void **context)
{
    if (!mkdtemp(directory))
        return -1;
    snprintf(paths.model, sizeof paths.model, "%s/model.safetensors", directory);
    snprintf(paths.other, sizeof paths.other, "%s/other.safetensors", directory);
    snprintf(paths.index, sizeof paths.index, "%s/m.safetensors.index.json", directory);
    snprintf(paths.log, sizeof paths.log, "%s/chain.tlog", directory);
    snprintf(paths.back, sizeof paths.back, "%s/back", directory);
    os = *qr_os_posix();
    os.pread = meddling_pread;
    (void)context;
    return 0;
}

static int end(void **context)
{
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    (void)context;
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overwritten),     cmocka_unit_test(appended),
        cmocka_unit_test(shortened),       cmocka_unit_test(replaced),
        cmocka_unit_test(shard_changed),   cmocka_unit_test(header_changed),
        cmocka_unit_test(second_producer),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
