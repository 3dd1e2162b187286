/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Headers of tensor files. They come from anywhere, so nothing in them is believed: every number is
 * compared with the size of the file before it is used, and the data must be covered exactly once.
 *
 *     safetensors  u64 N, N bytes of JSON: {"name": {"dtype", "shape", "data_offsets": [from, to]}}
 *                  with offsets from the end of the header; "__metadata__" is free text. The data.
 *     .npy         \x93NUMPY, u8 major, u8 minor, u16 or (from major 2 on) u32 length, that many
 *                  bytes: a Python dictionary with descr, fortran_order and shape. The data.
 *
 * JSON is read by cJSON, which bounds its depth; numbers it gives as doubles, which are exact up to
 * 2^53, and no file is larger. What it does not tell apart is looked for here: a NUL in a name, the
 * same name twice.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/bytes.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "sources/tensor.h"
#include "sources/tensor_internal.h"

enum {
    HEADER_MAX = 100000000, /* bytes of JSON; the limit of the safetensors format */
    NPY_HEADER_MAX = 1 << 20,
};
#define EXACT_MAX 9007199254740992.0 /* 2^53 */

static const struct qs_dtype dtypes[] = {
    {1, "BOOL", 8},     {2, "U8", 8},    {3, "I8", 8},      {4, "F8_E5M2", 8}, {5, "F8_E4M3", 8},
    {6, "F8_E8M0", 8},  {7, "U16", 16},  {8, "I16", 16},    {9, "F16", 16},    {10, "BF16", 16},
    {11, "U32", 32},    {12, "I32", 32}, {13, "F32", 32},   {14, "U64", 64},   {15, "I64", 64},
    {16, "F64", 64},    {17, "C64", 64}, {18, "C128", 128}, {19, "F4", 4},     {20, "F6_E2M3", 6},
    {21, "F6_E3M2", 6},
};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

const struct qs_dtype *qs_dtype_named(const char *name)
{
    for (size_t i = 0; i < DTYPES; i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return &dtypes[i];
    return NULL;
}

const struct qs_dtype *qs_dtype_of(unsigned code)
{
    code &= ~(unsigned)QS_DTYPE_BIG_ENDIAN;
    return code >= 1 && code <= DTYPES ? &dtypes[code - 1] : NULL;
}

/* A complex number is two floats, a number of less than a byte belongs to its byte. */
static unsigned width_of(const struct qs_dtype *dtype)
{
    if (dtype->name[0] == 'C')
        return dtype->bits / 16;
    return dtype->bits < 8 ? 1 : dtype->bits / 8;
}

enum qs_tensor_format qs_tensor_format_of(const char *path)
{
    static const struct {
        const char *ending;
        enum qs_tensor_format format;
    } endings[] = {{".safetensors", QS_SAFETENSORS},
                   {".safetensors.index.json", QS_SAFETENSORS_INDEX},
                   {".npy", QS_NPY}};
    size_t length = strlen(path);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t n = strlen(endings[i].ending);
        if (length > n && strcmp(path + length - n, endings[i].ending) == 0)
            return endings[i].format;
    }
    return QS_NO_TENSORS;
}

void qs_tensors_finish(struct qs_tensors *tensors)
{
    for (size_t i = 0; i < tensors->count; i++) {
        qr_free(tensors->items[i].name);
        qr_free(tensors->items[i].extra);
    }
    qr_free(tensors->items);
    *tensors = (struct qs_tensors){0};
}

/* --- shape and dtype --- */

struct shape {
    uint64_t dimensions[QS_RANK_MAX];
    unsigned rank;
};

/* The bytes of a tensor; UINT64_MAX: not a whole number of bytes, or more than 2^63. */
static uint64_t bytes_of(const struct qs_dtype *dtype, const struct shape *shape)
{
    uint64_t elements = 1, bits;
    for (unsigned i = 0; i < shape->rank; i++)
        if (__builtin_mul_overflow(elements, shape->dimensions[i], &elements))
            elements = UINT64_MAX; /* stays, unless a later dimension is 0 */
    if (__builtin_mul_overflow(elements, (uint64_t)dtype->bits, &bits) || bits % 8)
        return UINT64_MAX;
    return bits / 8;
}

/* Adds a tensor; its name is copied. */
static int add_tensor(struct qs_tensors *tensors, const char *name, unsigned code,
                      const struct shape *shape, uint64_t begin, uint64_t end)
{
    uint8_t extra[2 + QS_RANK_MAX * QR_VARINT_MAX], *p = extra;
    *p++ = (uint8_t)code;
    *p++ = (uint8_t)shape->rank;
    for (unsigned i = 0; i < shape->rank; i++)
        p = qr_put_varint(p, shape->dimensions[i]);
    size_t name_size = strlen(name) + 1;
    struct qs_tensor tensor = {.begin = begin,
                               .end = end,
                               .extra_length = (uint16_t)(p - extra),
                               .width = width_of(qs_dtype_of(code)),
                               .name = qr_malloc(name_size),
                               .extra = qr_malloc((size_t)(p - extra))};
    if (!tensor.name || !tensor.extra ||
        QR_GROW(tensors->items, tensors->count, tensors->capacity) < 0) {
        qr_free(tensor.name);
        qr_free(tensor.extra);
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for %zu tensors", tensors->count + 1);
    }
    memcpy(tensor.name, name, name_size);
    memcpy(tensor.extra, extra, tensor.extra_length);
    tensors->items[tensors->count++] = tensor;
    return 0;
}

/* --- what must hold of all tensors --- */

static int by_place(const void *a, const void *b)
{
    const struct qs_tensor *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static int by_name(const void *a, const void *b)
{
    const struct qs_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static int check_names(struct qs_tensors *tensors, const char *path)
{
    if (tensors->count)
        qsort(tensors->items, tensors->count, sizeof *tensors->items, by_name);
    for (size_t i = 1; i < tensors->count; i++)
        if (strcmp(tensors->items[i - 1].name, tensors->items[i].name) == 0)
            return qr_fail(QALLOW_E_SERIALIZATION, "%s: two tensors are called %s", qr_quotez(path),
                           qr_quotez(tensors->items[i].name));
    return 0;
}

/* The data of a file of `size` bytes: every byte belongs to one tensor. */
static int check_places(struct qs_tensors *tensors, const char *path, uint64_t size)
{
    uint64_t at = tensors->header_length;
    if (tensors->count)
        qsort(tensors->items, tensors->count, sizeof *tensors->items, by_place);
    for (size_t i = 0; i < tensors->count; i++) {
        const struct qs_tensor *t = &tensors->items[i];
        if (t->begin < at)
            return qr_fail(QALLOW_E_SERIALIZATION, "%s: tensor %s overlaps the one before it",
                           qr_quotez(path), qr_quotez(t->name));
        if (t->begin > at)
            return qr_fail(
                QALLOW_E_SERIALIZATION, "%s: the %llu bytes before tensor %s belong to no tensor",
                qr_quotez(path), (unsigned long long)(t->begin - at), qr_quotez(t->name));
        at = t->end;
    }
    if (at != size)
        return qr_fail(QALLOW_E_SERIALIZATION, "%s: the last %llu bytes belong to no tensor",
                       qr_quotez(path), (unsigned long long)(size - at));
    return 0;
}

/* --- safetensors --- */

/* A whole number that a double holds exactly. 1, or 0. */
static int get_number(const cJSON *item, uint64_t *number)
{
    double value = cJSON_IsNumber(item) ? item->valuedouble : -1;
    if (!(value >= 0 && value <= EXACT_MAX))
        return 0;
    *number = (uint64_t)value;
    return (double)*number == value;
}

static int get_shape(const cJSON *item, struct shape *shape)
{
    const cJSON *dimension;
    if (!cJSON_IsArray(item))
        return 0;
    shape->rank = 0;
    cJSON_ArrayForEach(
        dimension, item) if (shape->rank == QS_RANK_MAX ||
                             !get_number(dimension, &shape->dimensions[shape->rank++])) return 0;
    return 1;
}

/* One entry of the header; `data` is how many bytes follow it. */
static int read_entry(const cJSON *entry, const char *path, uint64_t data,
                      struct qs_tensors *tensors)
{
    const char *name = qr_quotez(entry->string), *file = qr_quotez(path);
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(entry, "dtype");
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(entry, "data_offsets");
    struct shape shape = {.rank = 0};
    uint64_t from = 0, to = 0;
    if (!*entry->string || strlen(entry->string) > QR_NAME_MAX)
        return qr_fail(QALLOW_E_SERIALIZATION, "%s: a tensor's name of %zu bytes", file,
                       strlen(entry->string));
    if (!cJSON_IsObject(entry) || !cJSON_IsString(dtype) ||
        !get_shape(cJSON_GetObjectItemCaseSensitive(entry, "shape"), &shape))
        return qr_fail(QALLOW_E_SERIALIZATION, "%s: tensor %s: no dtype and shape", file, name);
    const struct qs_dtype *type = qs_dtype_named(dtype->valuestring);
    if (!type)
        return qr_fail(QALLOW_E_SERIALIZATION, "%s: tensor %s: unknown dtype %s", file, name,
                       qr_quotez(dtype->valuestring));
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
        !get_number(cJSON_GetArrayItem(offsets, 0), &from) ||
        !get_number(cJSON_GetArrayItem(offsets, 1), &to) || from > to)
        return qr_fail(QALLOW_E_SERIALIZATION, "%s: tensor %s: no valid data_offsets", file, name);
    if (to > data)
        return qr_fail(QALLOW_E_SERIALIZATION,
                       "%s: tensor %s ends at byte %llu of %llu bytes of data", file, name,
                       (unsigned long long)to, (unsigned long long)data);
    if (bytes_of(type, &shape) != to - from)
        return qr_fail(QALLOW_E_SERIALIZATION,
                       "%s: tensor %s: its shape and dtype do not make %llu bytes", file, name,
                       (unsigned long long)(to - from));
    return add_tensor(tensors, entry->string, type->code, &shape, tensors->header_length + from,
                      tensors->header_length + to);
}

static int read_entries(const cJSON *root, const char *path, uint64_t size,
                        struct qs_tensors *tensors)
{
    const cJSON *entry;
    int rc = 0, metadata = 0;
    cJSON_ArrayForEach(entry, root)
    {
        if (strcmp(entry->string, QS_HEADER_NAME) != 0)
            rc = read_entry(entry, path, size - tensors->header_length, tensors);
        else if (metadata++)
            rc = qr_fail(QALLOW_E_SERIALIZATION, "%s: %s is there twice", qr_quotez(path),
                         QS_HEADER_NAME);
        if (rc)
            return rc;
    }
    return 0;
}

/* Is there a NUL in a name? To the parser, that would end it. */
static int has_nul_in_name(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        int has_nul = 0;
        if (text[i] != '"')
            continue;
        for (i++; i < length && text[i] != '"'; i++)
            if (text[i] == '\\') {
                has_nul |= length - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0;
                i++;
            }
        size_t behind = i + 1;
        while (behind < length && strchr(" \t\r\n", text[behind]))
            behind++;
        if (has_nul && behind < length && text[behind] == ':')
            return 1;
    }
    return 0;
}

/* JSON text as an object; NULL with detail. */
static cJSON *parse_json(const char *text, size_t length, const char *path)
{
    const char *end = NULL;
    cJSON *root = NULL;
    if (has_nul_in_name(text, length)) {
        qr_fail(QALLOW_E_SERIALIZATION, "%s: a name in its header has a NUL in it",
                qr_quotez(path));
        return NULL;
    }
    if (!memchr(text, 0, length))
        root = cJSON_ParseWithLengthOpts(text, length, &end, 0);
    while (root && end < text + length && strchr(" \t\r\n", *end))
        end++;
    if (!cJSON_IsObject(root) || end != text + length) {
        cJSON_Delete(root);
        qr_fail(QALLOW_E_SERIALIZATION, "%s: its header is not one JSON object", qr_quotez(path));
        return NULL;
    }
    return root;
}

/* The size of a safetensors header, from its first 8 bytes. */
static int safetensors_length(const uint8_t *bytes, const char *path, uint64_t size,
                              uint64_t *length)
{
    uint64_t json = size >= 8 ? qr_load64(bytes) : 0;
    if (size < 8)
        return qr_fail(QALLOW_E_SERIALIZATION, "%s: too short for a safetensors file",
                       qr_quotez(path));
    if (json > HEADER_MAX)
        return qr_fail(QALLOW_E_SERIALIZATION, "%s: a header of %llu bytes; safetensors allows %d",
                       qr_quotez(path), (unsigned long long)json, HEADER_MAX);
    if (json > size - 8)
        return qr_fail(QALLOW_E_SERIALIZATION, "%s: a header of %llu bytes in a file of %llu",
                       qr_quotez(path), (unsigned long long)json, (unsigned long long)size);
    *length = 8 + json;
    return 0;
}

static int parse_safetensors(const uint8_t *bytes, const char *path, uint64_t size,
                             struct qs_tensors *tensors)
{
    cJSON *root = parse_json((const char *)bytes + 8, (size_t)tensors->header_length - 8, path);
    int rc = root ? read_entries(root, path, size, tensors) : QALLOW_E_SERIALIZATION;
    cJSON_Delete(root);
    return rc;
}

/* --- .npy --- */

static int npy_length(const uint8_t *bytes, const char *path, uint64_t size, uint64_t *length)
{
    if (size < 12 || memcmp(bytes, "\x93NUMPY", 6) != 0 || bytes[6] < 1 || bytes[6] > 3)
        return qr_fail(QALLOW_E_SERIALIZATION, "%s: not a .npy file of version 1 to 3",
                       qr_quotez(path));
    uint64_t text = bytes[6] == 1 ? bytes[8] | (uint64_t)bytes[9] << 8 : qr_load32(bytes + 8);
    *length = (bytes[6] == 1 ? 10 : 12) + text;
    if (*length > size || *length > NPY_HEADER_MAX)
        return qr_fail(QALLOW_E_SERIALIZATION, "%s: a header of %llu bytes in a file of %llu",
                       qr_quotez(path), (unsigned long long)*length, (unsigned long long)size);
    return 0;
}

/* What follows 'key': in the dictionary; NULL if it is not there. */
static const char *npy_value(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    if (!at)
        return NULL;
    at += strlen(key);
    at += strspn(at, " ");
    if (*at++ != ':')
        return NULL;
    return at + strspn(at, " ");
}

/* '<f4' and the like; 0: not plain numbers. */
static unsigned npy_dtype(const char *text)
{
    static const struct {
        const char *descr, *name;
    } known[] = {{"b1", "BOOL"}, {"u1", "U8"},  {"i1", "I8"},  {"u2", "U16"},  {"i2", "I16"},
                 {"f2", "F16"},  {"u4", "U32"}, {"i4", "I32"}, {"f4", "F32"},  {"u8", "U64"},
                 {"i8", "I64"},  {"f8", "F64"}, {"c8", "C64"}, {"c16", "C128"}};
    if (!text || *text++ != '\'' || !*text || !strchr("<>|=", *text))
        return 0;
    unsigned big = *text++ == '>' ? QS_DTYPE_BIG_ENDIAN : 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t n = strlen(known[i].descr);
        if (strncmp(text, known[i].descr, n) == 0 && text[n] == '\'')
            return qs_dtype_named(known[i].name)->code | big;
    }
    return 0;
}

static int npy_shape(const char *text, struct shape *shape)
{
    if (!text || *text++ != '(')
        return 0;
    for (;;) {
        text += strspn(text, " ,");
        if (*text == ')')
            return 1;
        char *end;
        errno = 0;
        uint64_t number = *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : UINT64_MAX;
        if (number >= INT64_MAX || errno || shape->rank == QS_RANK_MAX)
            return 0;
        shape->dimensions[shape->rank++] = number;
        text = end;
    }
}

static int parse_npy(const uint8_t *bytes, const char *path, uint64_t size,
                     struct qs_tensors *tensors)
{
    size_t before = bytes[6] == 1 ? 10 : 12, length = (size_t)tensors->header_length - before;
    struct shape shape = {.rank = 0};
    char *text = qr_malloc(length + 1);
    if (!text)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the header of %s", qr_quotez(path));
    memcpy(text, bytes + before, length);
    text[length] = 0;
    unsigned code = npy_dtype(npy_value(text, "'descr'"));
    int has_shape = npy_shape(npy_value(text, "'shape'"), &shape);
    qr_free(text);
    uint64_t data = size - tensors->header_length;
    if (!code)
        return qr_fail(QALLOW_E_SERIALIZATION, "%s: its elements are not plain numbers",
                       qr_quotez(path));
    if (!has_shape || bytes_of(qs_dtype_of(code), &shape) != data)
        return qr_fail(QALLOW_E_SERIALIZATION, "%s: its shape and dtype do not make %llu bytes",
                       qr_quotez(path), (unsigned long long)data);
    return add_tensor(tensors, "array", code, &shape, tensors->header_length, size);
}

/* --- both --- */

static int header_length(const uint8_t *bytes, const char *path, uint64_t size,
                         enum qs_tensor_format format, uint64_t *length)
{
    return format == QS_NPY ? npy_length(bytes, path, size, length)
                            : safetensors_length(bytes, path, size, length);
}

int qs_tensors_parse(const uint8_t *bytes, size_t length, const char *path, uint64_t size,
                     enum qs_tensor_format format, struct qs_tensors *tensors)
{
    *tensors = (struct qs_tensors){0};
    int rc = header_length(bytes, path, size, format, &tensors->header_length);
    if (rc == 0 && tensors->header_length > length)
        rc = qr_fail(QALLOW_E_SERIALIZATION, "%s: its header is cut short", qr_quotez(path));
    if (rc == 0)
        rc = format == QS_NPY ? parse_npy(bytes, path, size, tensors)
                              : parse_safetensors(bytes, path, size, tensors);
    if (rc == 0)
        rc = check_names(tensors, path);
    if (rc == 0)
        rc = check_places(tensors, path, size);
    if (rc)
        qs_tensors_finish(tensors);
    return rc;
}

int qs_tensors_read(int fd, const char *path, uint64_t size, enum qs_tensor_format format,
                    struct qs_tensors *tensors)
{
    uint8_t first[16] = {0};
    uint64_t length = 0;
    *tensors = (struct qs_tensors){0};
    if (pread(fd, first, sizeof first, 0) < 0)
        return qr_fail_errno(errno, "%s", qr_quotez(path));
    int rc = header_length(first, path, size, format, &length);
    if (rc)
        return rc;
    /* as long as what is looked at first: it may be another file by now */
    uint8_t *bytes = qr_calloc(1, (size_t)length + sizeof first);
    if (!bytes)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the header of %s", qr_quotez(path));
    rc = qs_read_exactly(fd, path, bytes, (size_t)length, 0);
    if (rc == 0)
        rc = qs_tensors_parse(bytes, (size_t)length, path, size, format, tensors);
    qr_free(bytes);
    return rc;
}

/* --- the index of shards --- */

void qs_shards_finish(struct qs_shards *shards)
{
    for (size_t i = 0; i < shards->count; i++)
        qr_free(shards->names[i]);
    qr_free(shards->names);
    *shards = (struct qs_shards){0};
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add_shard(struct qs_shards *shards, const char *name)
{
    size_t size = strlen(name) + 1;
    char *copy =
        QR_GROW(shards->names, shards->count, shards->capacity) < 0 ? NULL : qr_malloc(size);
    if (!copy)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the names of shards");
    memcpy(copy, name, size);
    shards->names[shards->count++] = copy;
    return 0;
}

static int collect_shards(const cJSON *map, const char *path, struct qs_shards *shards)
{
    const cJSON *entry;
    int rc = 0;
    cJSON_ArrayForEach(entry, map)
    {
        const char *name = cJSON_IsString(entry) ? entry->valuestring : "";
        if (strchr(name, '/') || qs_tensor_format_of(name) != QS_SAFETENSORS)
            return qr_fail(QALLOW_E_SERIALIZATION, "%s: %s is not the name of a shard beside it",
                           qr_quotez(path), qr_quotez(name));
        if (shards->count == 0 || strcmp(shards->names[shards->count - 1], name) != 0)
            rc = add_shard(shards, name);
        if (rc)
            return rc;
    }
    return 0;
}

int qs_shards_parse(const char *text, size_t length, const char *path, struct qs_shards *shards)
{
    *shards = (struct qs_shards){0};
    cJSON *root = parse_json(text, length, path);
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(root, "weight_map");
    int rc = !root ? QALLOW_E_SERIALIZATION : 0;
    if (rc == 0 && (!cJSON_IsObject(map) || !map->child))
        rc = qr_fail(QALLOW_E_SERIALIZATION, "%s: no weight_map", qr_quotez(path));
    if (rc == 0)
        rc = collect_shards(map, path, shards);
    cJSON_Delete(root);
    if (rc) {
        qs_shards_finish(shards);
        return rc;
    }
    qsort(shards->names, shards->count, sizeof *shards->names, by_text);
    size_t kept = 1;
    for (size_t i = 1; i < shards->count; i++) {
        if (strcmp(shards->names[kept - 1], shards->names[i]) == 0)
            qr_free(shards->names[i]);
        else
            shards->names[kept++] = shards->names[i];
    }
    shards->count = kept;
    return 0;
}
