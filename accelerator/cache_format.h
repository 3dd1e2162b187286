/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layout of the cache in shared memory, as docs/formats/cache.md describes it, and the few
 * operations on its words that keeper and readers have in common.
 *
 * One process writes and any number read, without locks. So every word that a reader may look at is
 * stored with release and loaded with acquire order (a plain move on x86): who sees a word of a
 * block that was given a new use also sees what was stored before, namely that the block is no
 * longer what it was.
 */
#ifndef QA_CACHE_FORMAT_H
#define QA_CACHE_FORMAT_H

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <xxhash.h>

#include "qallow/accelerator.h"

#define QA_CACHE_MAGIC "QALLOWSM"
#define QA_MAP_BYTES   (UINT64_C(63) << 30) /* of address space; less than 2^32 granules */
enum {
    QA_CACHE_VERSION = 2,
    QA_GRANULE = 16, /* blocks begin at multiples of it and are as long */
    QA_HEADER_BYTES = 8192,
    QA_NUMBERS_MAX = 256,
    QA_ROOT_MAX = 4096,    /* with the NUL */
    QA_CACHE_PATH = 65535, /* bytes of a path, at most */
    QA_TABLE_LOG2_MIN = 6,
    QA_TABLE_LOG2_MAX = 31,
    QA_SHARDS = 32, /* of the readers' counters */
};

/* What the first 16 bytes mean never changes, so that any version can tell another one, and any
 * keeper can tell readers that what they have mapped is over. */
struct qa_header {
    char magic[8];
    uint32_t version;
    _Atomic uint32_t superseded; /* not 0: there is, or will be, another segment of this name */

    uint32_t hash, hash_bytes; /* enum qallow_hash */
    uint64_t map_bytes;        /* QA_MAP_BYTES */
    uint64_t seed;             /* of the hashes of paths */
    uint64_t root_device, root_inode;
    uint8_t history[16];  /* uuid; see own_history */
    uint8_t boot[16];     /* of the machine; a segment on disk does not survive a crash of it */
    uint32_t own_history; /* 1: the epochs are nobody else's */
    uint32_t root_length;
    uint8_t reserved1[32];

    /* what a look-up reads; changes when the tree grows */
    _Atomic uint64_t table; /* bits 0..31 granule, 32..39 log2 of the slots, 40..63 serial number */
    _Atomic uint64_t ring;  /* bits 0..31 granule, 32..63 serial number */
    _Atomic uint64_t size;  /* bytes of the segment that exist; only grows */
    uint8_t reserved2[40];

    /* changes with every epoch */
    _Atomic uint64_t epoch;   /* the newest */
    _Atomic uint64_t head;    /* records of the journal ever written up to that epoch */
    _Atomic uint64_t floor;   /* the journal is complete for what came after this epoch */
    _Atomic uint64_t updated; /* ns since 1970 */
    _Atomic uint32_t futex;   /* counts what a sleeper should wake for */
    _Atomic uint32_t state;   /* enum qallow_keeper_state */
    _Atomic uint32_t keeper;  /* its pid */
    uint32_t reserved3;
    uint64_t reserved4[2];

    /* changes all the time */
    _Atomic uint64_t files, bytes, refused;
    _Atomic uint64_t limit;     /* the segment will not grow beyond these bytes */
    _Atomic uint64_t takeovers; /* keepers it has had */
    uint8_t reserved5[24 + 704];

    _Atomic uint64_t numbers[QA_NUMBERS_MAX]; /* enum qt_metric */
    uint8_t reserved6[1024];
    char root[QA_ROOT_MAX];
};

/* What is known of a path. Published by storing it into a slot of the table; from then on only
 * these words change: epoch (when the epoch that was expected got another number), ctime and device
 * (both of no concern to readers), walk, pending, content (to 0, when it is evicted), generation
 * (to 0, when it is no longer in the table). */
struct qa_entry {
    _Atomic uint64_t generation; /* of the block's use: unique in the segment; 0: none */
    _Atomic uint64_t path_hash;  /* XXH3-64 with the header's seed */
    _Atomic uint64_t epoch;
    _Atomic uint64_t size, mtime, ctime, inode, device;
    _Atomic uint64_t shape; /* bits 0..15 mode, 16..23 kind, 24..31 state, 32..47 bytes of the path,
                               48 removed */
    _Atomic uint32_t walk;  /* number of the walk that saw it last */
    _Atomic uint32_t pending;
    _Atomic uint64_t content; /* granule of its bytes, 0: they are not kept */
    _Atomic uint64_t words[]; /* hash_bytes of hash, then the path, filled up with zeros */
};

/* The journal: record i, counted from 0, is in records[i % capacity]. */
struct qa_record {
    _Atomic uint64_t path_hash, epoch;
};
struct qa_ring {
    _Atomic uint64_t capacity;
    uint64_t reserved;
    struct qa_record records[];
};

/* A slot of the table: bits 0..31 granule of the entry, 32..63 the low half of the path's hash.
 * The first slot to try is given by the hash's highest bits, so that the order of the entries is
 * roughly the same in a table of any size. */
#define QA_SLOT_EMPTY   UINT64_C(0)
#define QA_SLOT_DELETED (UINT64_C(1) << 32) /* granule 0, which is the header's */

/* NAME.readers: what readers count, each on a line of its own. */
struct qa_shard {
    _Atomic uint64_t hits, misses;
    uint64_t reserved[14];
};
struct qa_readers {
    char magic[8];
    uint32_t version, shards;
    uint64_t reserved[14];
    struct qa_shard shard[QA_SHARDS];
};

static_assert(sizeof(struct qa_header) == QA_HEADER_BYTES, "docs/formats/cache.md");
static_assert(offsetof(struct qa_header, superseded) == 12, "docs/formats/cache.md");
static_assert(offsetof(struct qa_header, hash) == 16, "docs/formats/cache.md");
static_assert(offsetof(struct qa_header, map_bytes) == 24, "docs/formats/cache.md");
static_assert(offsetof(struct qa_header, root_device) == 40, "docs/formats/cache.md");
static_assert(offsetof(struct qa_header, history) == 56, "docs/formats/cache.md");
static_assert(offsetof(struct qa_header, boot) == 72, "docs/formats/cache.md");
static_assert(offsetof(struct qa_header, root_length) == 92, "docs/formats/cache.md");
static_assert(offsetof(struct qa_header, table) == 128, "docs/formats/cache.md");
static_assert(offsetof(struct qa_header, size) == 144, "docs/formats/cache.md");
static_assert(offsetof(struct qa_header, epoch) == 192, "docs/formats/cache.md");
static_assert(offsetof(struct qa_header, futex) == 224, "docs/formats/cache.md");
static_assert(offsetof(struct qa_header, files) == 256, "docs/formats/cache.md");
static_assert(offsetof(struct qa_header, numbers) == 1024, "docs/formats/cache.md");
static_assert(offsetof(struct qa_header, root) == 4096, "docs/formats/cache.md");
static_assert(offsetof(struct qa_entry, shape) == 64, "docs/formats/cache.md");
static_assert(offsetof(struct qa_entry, words) == 88, "docs/formats/cache.md");
static_assert(sizeof(struct qa_record) == 16 && offsetof(struct qa_ring, records) == 16,
              "docs/formats/cache.md");
static_assert(sizeof(struct qa_shard) == 128 && offsetof(struct qa_readers, shard) == 128,
              "docs/formats/cache.md");
static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "shared between processes");

static inline uint64_t qa_load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}
static inline void qa_store(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}
static inline uint32_t qa_load32(const _Atomic uint32_t *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}
static inline void qa_store32(_Atomic uint32_t *word, uint32_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}

/* The word at byte `at` of `bytes`, filled up with zeros. */
static inline uint64_t qa_word_of(const void *bytes, size_t at, size_t length)
{
    uint64_t word = 0;
    memcpy(&word, (const char *)bytes + at, length - at < 8 ? length - at : 8);
    return word;
}
/* Copies between words and bytes; the last word is filled up with zeros. */
static inline void qa_store_bytes(_Atomic uint64_t *words, const void *bytes, size_t length)
{
    for (size_t at = 0; at < length; at += 8)
        qa_store(words + at / 8, qa_word_of(bytes, at, length));
}
static inline void qa_load_bytes(void *bytes, const _Atomic uint64_t *words, size_t length)
{
    size_t at = 0;
    for (uint64_t word; at + 8 <= length; at += 8) {
        word = qa_load(words + at / 8);
        memcpy((char *)bytes + at, &word, 8);
    }
    if (at < length) {
        uint64_t word = qa_load(words + at / 8);
        memcpy((char *)bytes + at, &word, length - at);
    }
}
static inline int qa_same_bytes(const _Atomic uint64_t *words, const void *bytes, size_t length)
{
    uint64_t differ = 0;
    size_t at = 0;
    for (; at + 8 <= length; at += 8) {
        uint64_t word;
        memcpy(&word, (const char *)bytes + at, 8);
        differ |= qa_load(words + at / 8) ^ word;
    }
    if (at < length)
        differ |= qa_load(words + at / 8) ^ qa_word_of(bytes, at, length);
    return differ == 0;
}

static inline uint64_t qa_path_hash(uint64_t seed, const char *path, size_t length)
{
    return XXH3_64bits_withSeed(path, length, seed);
}

static inline uint64_t qa_table_root(uint32_t granule, unsigned log2, uint64_t serial)
{
    return granule | (uint64_t)log2 << 32 | serial << 40;
}
static inline uint32_t qa_granule_of(uint64_t word) { return (uint32_t)word; }
static inline unsigned qa_log2_of(uint64_t table) { return (unsigned)(table >> 32 & 0xff); }
static inline uint64_t qa_slot(uint64_t path_hash, uint32_t granule)
{
    return path_hash << 32 | granule;
}
static inline int qa_slot_is_used(uint64_t slot) { return qa_granule_of(slot) != 0; }
static inline int qa_slot_fits(uint64_t slot, uint64_t path_hash)
{
    return slot >> 32 == (path_hash & UINT32_MAX) && qa_slot_is_used(slot);
}
static inline uint64_t qa_home(uint64_t path_hash, unsigned log2)
{
    return path_hash >> (64 - log2);
}

static inline uint64_t qa_shape(uint32_t mode, uint8_t kind, uint8_t state, size_t length, int gone)
{
    return (mode & 0xffff) | (uint64_t)kind << 16 | (uint64_t)state << 24 | (uint64_t)length << 32 |
           (uint64_t)(gone != 0) << 48;
}
static inline size_t qa_shape_length(uint64_t shape) { return shape >> 32 & 0xffff; }
static inline int qa_shape_is_removed(uint64_t shape) { return shape >> 48 & 1; }
/* What a keeper may have written: whoever reads an entry takes kind and state for those of the
 * interface. */
static inline int qa_shape_is_plausible(uint64_t shape)
{
    uint64_t mode = shape & 0xffff, kind = shape >> 16 & 0xff, state = shape >> 24 & 0xff;
    if (shape >> 49 || qa_shape_length(shape) == 0)
        return 0;
    if (qa_shape_is_removed(shape))
        return mode == 0 && kind == 0 && state == 0;
    return mode <= 07777 && (kind == QALLOW_FILE_REGULAR || kind == QALLOW_FILE_SYMLINK) &&
           state >= QALLOW_FILE_CURRENT && state <= QALLOW_FILE_UNREADABLE;
}

static inline uint64_t qa_entry_bytes(uint32_t hash_bytes, size_t path_length)
{
    return offsetof(struct qa_entry, words) + hash_bytes + (path_length + 7) / 8 * 8;
}
static inline uint64_t qa_granules(uint64_t bytes) { return (bytes + QA_GRANULE - 1) / QA_GRANULE; }

#endif
