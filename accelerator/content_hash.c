/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two hashes of content behind one interface. XXH3-128 is the kernels', in the canonical order
 * of its bytes (the high half first, each half big-endian), which is how xxhsum prints it. SHA-256
 * is OpenSSL's, which knows the instructions that the CPU has for it; its context is made once.
 */
#include "accelerator/content_hash.h"

#include <string.h>

#ifdef QA_HAVE_SHA256
#include <openssl/evp.h>
#endif

#include "backend/kernels.h"
#include "runtime/error.h"
#include "runtime/os.h"

struct algorithm {
    int (*begin)(struct qa_content_hash *hash);
    int (*add)(struct qa_content_hash *hash, const void *bytes, size_t n);
    int (*end)(struct qa_content_hash *hash, uint8_t result[QA_HASH_BYTES_MAX]);
};

struct qa_content_hash {
    struct qb_hash128 xxh3; /* has to stand on a multiple of 64 */
    const struct qb_kernels *kernels;
    const struct algorithm *algorithm;
    void *allocated; /* what this stands in */
#ifdef QA_HAVE_SHA256
    EVP_MD *sha256;
    EVP_MD_CTX *context;
#endif
};

size_t qa_content_hash_size(enum qallow_hash kind)
{
    return kind == QALLOW_HASH_XXH3_128 ? 16 : kind == QALLOW_HASH_SHA256 ? 32 : 0;
}

/* --- XXH3-128 --- */

static void put_big_endian(uint8_t *to, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)(value >> (56 - 8 * i));
}

static void put_xxh3(uint8_t result[QA_HASH_BYTES_MAX], struct qb_u128 sum)
{
    put_big_endian(result, sum.hi);
    put_big_endian(result + 8, sum.lo);
    memset(result + 16, 0, QA_HASH_BYTES_MAX - 16);
}

static int xxh3_begin(struct qa_content_hash *hash)
{
    hash->kernels->hash128_begin(&hash->xxh3);
    return 0;
}

static int xxh3_add(struct qa_content_hash *hash, const void *bytes, size_t n)
{
    hash->kernels->hash128_update(&hash->xxh3, bytes, n);
    return 0;
}

static int xxh3_end(struct qa_content_hash *hash, uint8_t result[QA_HASH_BYTES_MAX])
{
    put_xxh3(result, hash->kernels->hash128_end(&hash->xxh3));
    return 0;
}

static const struct algorithm xxh3 = {xxh3_begin, xxh3_add, xxh3_end};

/* --- SHA-256 --- */

#ifdef QA_HAVE_SHA256
static int sha256_failed(void) { return qr_fail(QALLOW_E_NO_MEMORY, "no memory for SHA-256"); }

static int sha256_begin(struct qa_content_hash *hash)
{
    return EVP_DigestInit_ex2(hash->context, hash->sha256, NULL) ? 0 : sha256_failed();
}

static int sha256_add(struct qa_content_hash *hash, const void *bytes, size_t n)
{
    return EVP_DigestUpdate(hash->context, bytes, n) ? 0 : sha256_failed();
}

static int sha256_end(struct qa_content_hash *hash, uint8_t result[QA_HASH_BYTES_MAX])
{
    return EVP_DigestFinal_ex(hash->context, result, NULL) ? 0 : sha256_failed();
}

static const struct algorithm sha256 = {sha256_begin, sha256_add, sha256_end};

static int sha256_init(struct qa_content_hash *hash)
{
    hash->algorithm = &sha256;
    hash->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (!hash->sha256)
        return qr_fail(QALLOW_E_UNAVAILABLE, "this OpenSSL offers no SHA-256");
    hash->context = EVP_MD_CTX_new();
    return hash->context ? 0 : sha256_failed();
}
#endif

/* --- both --- */

static int init(struct qa_content_hash *hash, enum qallow_hash kind)
{
    hash->kernels = qb_kernels();
    hash->algorithm = &xxh3;
    if (kind != QALLOW_HASH_SHA256)
        return 0;
#ifdef QA_HAVE_SHA256
    return sha256_init(hash);
#else
    return qr_fail(QALLOW_E_UNAVAILABLE, "this Qallow was built without SHA-256, which takes "
                                         "OpenSSL's libcrypto (libssl-dev)");
#endif
}

int qa_content_hash_create(enum qallow_hash kind, struct qa_content_hash **out)
{
    enum { ALIGNMENT = _Alignof(struct qa_content_hash) };
    if (!qa_content_hash_size(kind))
        return qr_fail(QALLOW_E_ARGUMENT, "there is no hash number %d", (int)kind);
    char *allocated = qr_calloc(1, sizeof(struct qa_content_hash) + ALIGNMENT);
    if (!allocated)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for hashing");
    size_t beyond = (uintptr_t)allocated % ALIGNMENT;
    struct qa_content_hash *hash = (void *)(allocated + (beyond ? ALIGNMENT - beyond : 0));
    hash->allocated = allocated;
    int result = init(hash, kind);
    if (result < 0)
        qa_content_hash_destroy(hash);
    else
        *out = hash;
    return result;
}

void qa_content_hash_destroy(struct qa_content_hash *hash)
{
    if (!hash)
        return;
#ifdef QA_HAVE_SHA256
    EVP_MD_CTX_free(hash->context);
    EVP_MD_free(hash->sha256);
#endif
    qr_free(hash->allocated);
}

int qa_content_hash_begin(struct qa_content_hash *hash) { return hash->algorithm->begin(hash); }

int qa_content_hash_add(struct qa_content_hash *hash, const void *bytes, size_t n)
{
    return hash->algorithm->add(hash, bytes, n);
}

int qa_content_hash_end(struct qa_content_hash *hash, uint8_t result[QA_HASH_BYTES_MAX])
{
    return hash->algorithm->end(hash, result);
}

int qa_content_hash_of(struct qa_content_hash *hash, const void *bytes, size_t n,
                       uint8_t result[QA_HASH_BYTES_MAX])
{
    if (hash->algorithm == &xxh3) { /* at once it is faster */
        put_xxh3(result, hash->kernels->hash128(bytes, n));
        return 0;
    }
    int rc = qa_content_hash_begin(hash);
    if (rc == 0)
        rc = qa_content_hash_add(hash, bytes, n);
    return rc == 0 ? qa_content_hash_end(hash, result) : rc;
}
