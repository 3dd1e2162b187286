/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the C reader makes of damaged logs, many a second: reads changes from stdin, makes each on a
 * fresh copy of the log, opens the copy and says what came out. The tests compare that with what
 * the Python reader says.
 *
 *     outcome LOG SCRATCH [recover] < CHANGES
 *
 * SCRATCH is a path for the copies. CHANGES are lines of steps, divided by semicolons:
 *     cut LENGTH          the first bytes only
 *     xor OFFSET BYTE
 *     put OFFSET LENGTH   that many zeros
 *     file PATH           another file instead of LOG
 * Each gives one line: "RESULT FIRST LAST DIGEST" with the result of opening and verifying (0 or
 * QALLOW_E_*), the epochs that can be had and the digest of the last one. With `recover` the copy
 * is opened for writing first, and the line is about the second opening.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/query.h"
#include "runtime/store.h"

struct bytes {
    unsigned char *data;
    size_t length;
};

static int load(const char *path, struct bytes *bytes)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0)
        return -1;
    bytes->length = (size_t)ftell(file);
    bytes->data = malloc(bytes->length + 1);
    rewind(file);
    size_t got = bytes->data ? fread(bytes->data, 1, bytes->length, file) : 0;
    fclose(file);
    return got == bytes->length ? 0 : -1;
}

static int save(const char *path, const struct bytes *bytes)
{
    unlink(path); /* writing a truncated file anew would wait for the disk */
    FILE *file = fopen(path, "wb");
    if (!file)
        return -1;
    size_t put = fwrite(bytes->data, 1, bytes->length, file);
    return fclose(file) == 0 && put == bytes->length ? 0 : -1;
}

/* One step of a line; -1 if it is none. */
static int change(struct bytes *bytes, const char *step)
{
    size_t offset, length;
    unsigned value;
    char path[4096];
    if (sscanf(step, "cut %zu", &length) == 1 && length <= bytes->length) {
        bytes->length = length;
    } else if (sscanf(step, "xor %zu %u", &offset, &value) == 2 && offset < bytes->length) {
        bytes->data[offset] ^= (unsigned char)value;
    } else if (sscanf(step, "put %zu %zu", &offset, &length) == 2 &&
               offset + length <= bytes->length) {
        memset(bytes->data + offset, 0, length);
    } else if (sscanf(step, "file %4095s", path) == 1) {
        free(bytes->data);
        return load(path, bytes);
    } else {
        return -1;
    }
    return 0;
}

static void no_problem(void *context, uint64_t epoch, const char *page, const char *text)
{
}

static void report(const char *path)
{
    struct qr_store_options options = {.ignore_index = 1};
    struct qr_store *store = NULL;
    struct qr_store_info info = {0};
    struct qr_verify_result result;
    struct qb_u128 digest = {0};
    int rc = qr_store_open(path, &options, &store);
    if (rc == 0) {
        qr_store_info(store, &info);
        digest = qr_state_digest(qr_store_state(store));
        rc = qr_verify_history(store, 1, 0, no_problem, NULL, &result);
    }
    printf("%d %" PRIu64 " %" PRIu64 " %016" PRIx64 "%016" PRIx64 "\n", rc, info.first_epoch,
           info.last_epoch, digest.hi, digest.lo);
    if (store)
        qr_store_close(store);
}

static void recover(const char *path)
{
    struct qr_store_options options = {.writable = 1, .ignore_index = 1, .no_index = 1};
    struct qr_store *store = NULL;
    if (qr_store_open(path, &options, &store) == 0)
        qr_store_close(store);
}

int main(int argc, char **argv)
{
    static char line[1 << 16]; /* a step for every byte of some frames */
    struct bytes original = {0};
    if (argc < 3 || load(argv[1], &original) != 0) {
        fprintf(stderr, "usage: outcome LOG SCRATCH [recover] < CHANGES\n");
        return 64;
    }
    while (fgets(line, sizeof line, stdin)) {
        struct bytes copy = {malloc(original.length + 1), original.length};
        int rc = copy.data ? 0 : -1;
        if (rc == 0)
            memcpy(copy.data, original.data, original.length);
        line[strcspn(line, "\n")] = '\0';
        char *rest = line, *step;
        while (rc == 0 && (step = strsep(&rest, ";")) != NULL)
            rc = change(&copy, step);
        if (rc != 0 || save(argv[2], &copy) != 0) {
            fprintf(stderr, "outcome: cannot make a change\n");
            return 70;
        }
        free(copy.data);
        if (argc > 3)
            recover(argv[2]);
        report(argv[2]);
    }
    free(original.data);
    unlink(argv[2]);
    return 0;
}
