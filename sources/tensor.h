/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of tensors as a source of pages (save) and as a place to put them (restore): safetensors,
 * NumPy's .npy, and safetensors in shards with their index.
 *
 * A file is a page of kind DIRECTORY with parent 0, its base name, and what it is as its extra
 * bytes. Below it are the bytes in front of the data, a RAW page called "__metadata__" (no tensor
 * may have that name), and a page of kind TENSOR for each tensor, whose extra bytes are dtype and
 * shape. The index of shards is a RAW page with parent 0. So a file is its header page and then its
 * tensors in the order of their places, and comes back byte for byte.
 */
#ifndef QS_TENSOR_H
#define QS_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/store.h"

enum qs_tensor_format { QS_NO_TENSORS, QS_SAFETENSORS, QS_SAFETENSORS_INDEX, QS_NPY };
/* By the name alone. */
enum qs_tensor_format qs_tensor_format_of(const char *path);

/* Types of elements; the values are in the log format (docs/formats/tlog.md, "Tensors"). */
enum { QS_DTYPE_BIG_ENDIAN = 0x80 };
struct qs_dtype {
    uint8_t code;
    const char *name; /* as safetensors spells it */
    unsigned bits;    /* of an element */
};
/* NULL: there is no such type. */
const struct qs_dtype *qs_dtype_named(const char *name);
const struct qs_dtype *qs_dtype_of(unsigned code);

enum { QS_RANK_MAX = 64 };
/* Extra bytes of a tensor's page: u8 dtype, u8 rank, a varint for each dimension. */
struct qs_tensor {
    char *name;
    uint64_t begin, end; /* in the file */
    uint8_t *extra;
    uint16_t extra_length;
    unsigned width; /* bytes that belong together: 1, 2, 4 or 8 */
};
struct qs_tensors {
    uint64_t header_length;  /* bytes in front of the data */
    struct qs_tensor *items; /* by their place; without gaps up to the end of the file */
    size_t count, capacity;
};
/* Reads and checks a header. `path` is for messages only. SERIALIZATION: not such a file, or one
 * whose header and data do not fit together; LIMIT; IO; NO_MEMORY. */
int qs_tensors_read(int fd, const char *path, uint64_t size, enum qs_tensor_format format,
                    struct qs_tensors *tensors);
/* The same from bytes in memory: the header, and 16 more that do not matter. */
int qs_tensors_parse(const uint8_t *bytes, size_t length, const char *path, uint64_t size,
                     enum qs_tensor_format format, struct qs_tensors *tensors);
void qs_tensors_finish(struct qs_tensors *tensors);

/* The names of the shards in an index, sorted, each once. */
struct qs_shards {
    char **names;
    size_t count, capacity;
};
int qs_shards_parse(const char *text, size_t length, const char *path, struct qs_shards *shards);
void qs_shards_finish(struct qs_shards *shards);

/* --- save --- */

struct qs_tensor_save {
    uint64_t epoch; /* that holds it */
    int committed;  /* 1 if a new one was made */
    uint64_t files, tensors, read_bytes;
    uint64_t created, changed, renamed, removed; /* tensors */
    uint64_t written_bytes;                      /* of CONTENT frames */
};
/* One epoch that holds the file, or the shards and their index. What the newest epoch has under
 * other names is taken for the same file or tensor if there is just as many. STATE: the log records
 * something else; BUSY: a file changed while it was read; as qs_tensors_read. On failure the store
 * is as before. */
int qs_tensors_save(struct qr_store *store, const char *path, enum qs_tensor_format format,
                    int threads, struct qs_tensor_save *result);

/* --- restore --- */

/* 1 if the pages of an epoch are files of tensors. */
int qs_has_tensors(const struct qr_state *state);

struct qs_tensor_restore_options {
    int force, threads;
    const struct qr_state *before; /* of the epoch that is replaced there; NULL: not known */
};
struct qs_tensor_restore {
    uint64_t files, bytes;
};
/* Writes the file, or a directory with the shards and their index. It gets its name when it is
 * whole, verified and on the disk; what had the name before is replaced only with `force`, and a
 * directory only if all that is in it has the name of a file of this epoch or of the one before.
 * An empty directory always is. BUSY: somebody else is restoring there; DAMAGED, CANNOT_CREATE,
 * IO. */
int qs_tensors_restore(struct qr_store *store, const struct qr_state *state, const char *target,
                       const struct qs_tensor_restore_options *options,
                       struct qs_tensor_restore *result);
/* Is the file, or the directory, what the epoch says? 1 or 0, or an error. */
int qs_tensors_same(struct qr_store *store, const struct qr_state *state, const char *path,
                    int threads);

#endif
