/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the memory-resident pages share. resident.c: the set, ids, old content that
 * snapshots or late readers hold. resident_section.c: changing. resident_blocks.c: a block made
 * ready to be changed. resident_read.c: readers and snapshots. How they keep out of each other's
 * way stands at the head of resident.c.
 */
#ifndef QR_RESIDENT_INTERNAL_H
#define QR_RESIDENT_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "runtime/resident.h"

enum {
    ID_BITS = 12, /* of an id, told apart by one level of the table */
    ID_FANOUT = 1 << ID_BITS,
    INDEX_BITS = 27, /* of a block's number in its page */
};
_Static_assert(QR_RESIDENT_SIZE_MAX / QR_RESIDENT_BLOCK == 1 << INDEX_BITS, "block numbers fit");
_Static_assert(QR_RESIDENT_ID_MAX == (UINT64_C(1) << 3 * ID_BITS) - 1, "three levels");

/* What a reader is at: 0 for nothing, a block of the newest content, or some snapshot. */
#define TARGET_NONE       UINT64_C(0)
#define TARGET_SNAPSHOT   (UINT64_C(1) << 63)
#define TARGET(id, index) (TARGET_SNAPSHOT | (id) << INDEX_BITS | (index))

/* Content that was replaced. It hangs in a chain at its block or page for those snapshots that see
 * it, newest first; and in the list of the newest of them, or later in that of what waits until no
 * reader can be at it. */
enum qr_old_kind { QR_OLD_BLOCK, QR_OLD_SIZE, QR_OLD_TABLE, QR_OLD_PAGE };
struct qr_old {
    struct qr_old *next; /* in the list */
    _Atomic(struct qr_old *) older;
    uint64_t epoch; /* what it shows begins here and ends with the next newer one */
    uint64_t era;
    struct qr_resident_page *page;
    uint64_t index; /* of a block */
    void *memory;   /* a block's bytes (NULL: zeros), a table; NULL for a size */
    uint64_t size;  /* of the memory; or the page's size */
    enum qr_old_kind kind;
};

struct qr_block {
    _Atomic uint32_t sequence; /* odd: a section has it in change */
    _Atomic uint32_t capacity; /* of bytes; behind the page's end they are zero */
    _Atomic uint64_t epoch;    /* of the last change; 0: none since the page was created */
    _Atomic(uint8_t *) bytes;  /* NULL: zeros */
    _Atomic(struct qr_old *) older;
};

struct qr_resident_page { /* two cache lines; what every change needs lies in the first */
    _Atomic(struct qr_section *) owner;
    _Atomic(struct qr_block *) blocks; /* &first, or a table; it only grows */
    _Atomic uint64_t size, freed;      /* freed: the epoch, or 0 */
    struct qr_block first;
    uint64_t last_epoch, block_count; /* the owner's */
    uint64_t id, created;
    _Atomic uint64_t size_epoch;
    _Atomic(struct qr_old *) older_sizes;
};
/* What stands in the table of ids for a page whose memory is gone. */
#define PAGE_FREED ((struct qr_resident_page *)1)

typedef _Atomic(struct qr_resident_page *) qr_page_slot;
struct qr_id_leaf {
    qr_page_slot pages[ID_FANOUT];
};
struct qr_id_node {
    _Atomic(struct qr_id_leaf *) leaves[ID_FANOUT];
};

struct qr_pin { /* an epoch that snapshots hold */
    struct qr_pin *older, *newer;
    uint64_t epoch, holders;
    struct qr_old *held;
};
struct qr_resident_snapshot {
    struct qr_resident *resident;
    struct qr_pin *pin;
    uint64_t epoch;
};

struct qr_resident_reader {
    _Alignas(64) _Atomic uint64_t target; /* stored last when it arrives, first when it leaves */
    _Atomic uint64_t era;
    _Atomic uint64_t waits;
    struct qr_resident_reader *next; /* in the list of all, those not in use included */
    struct qr_resident *resident;
    int in_use;
};

struct qr_touched { /* a block that the section has made odd */
    struct qr_resident_page *page;
    uint64_t index;
    int fresh; /* its bytes are new: no reader can be at them */
};
struct qr_section {
    struct qr_resident *resident;
    struct qr_section *next, *previous; /* open ones, in the order of their tickets */
    uint64_t epoch, ticket, era;
    uint64_t pin_limit; /* what is of an earlier epoch than this, a snapshot may see */
    int open, shared;   /* shared: there may be readers */
    pthread_t thread;
    struct qr_resident_page **pages;
    size_t page_count, page_capacity;
    struct qr_touched *blocks;
    size_t block_count, block_capacity, settled;
    int64_t pages_more, bytes_more;
    uint64_t copied_for_snapshots, copied_for_readers;
};

struct qr_resident {
    struct qr_pool *pool;
    int own_pool;
    _Atomic uint64_t era; /* grows when content has been taken out of sight */
    _Atomic(struct qr_resident_reader *) readers;

    _Alignas(64)
        pthread_mutex_t lock; /* of all below, of chains, and of changes in the table of ids */
    pthread_cond_t ended;     /* a section, while somebody waits */
    struct qr_section *first_open, *last_open;
    uint64_t epoch, ticket, pinned; /* pinned: the newest epoch ever held plus 1 */
    struct qr_pin *newest_pin;
    struct qr_old *waiting; /* out of sight, perhaps not out of a reader's hands */
    size_t sections, reader_count, waiters;
    struct qr_resident_stats stats;
    _Atomic(struct qr_id_node *) ids[ID_FANOUT];
};

/* resident.c */
struct qr_resident_page *qr_resident_find(struct qr_resident *resident, uint64_t id);
void qr_resident_prefetch(struct qr_resident *resident, uint64_t id);
int qr_resident_insert(struct qr_resident *resident, struct qr_resident_page *page);
void qr_resident_remove_id(struct qr_resident *resident, uint64_t id); /* with the lock held */
int qr_resident_missing(uint64_t id);
int qr_resident_beyond(uint64_t id, uint64_t offset, uint64_t length, uint64_t size);
void qr_resident_free_page(struct qr_resident *resident, struct qr_resident_page *page);

/* With the lock held. Hold: content that `section` replaces goes to the newest snapshot that sees
 * it, 1, or if there is none 0. Retire: content that is out of sight is freed when no reader can be
 * at it any more, by reclaim. */
int qr_old_hold(struct qr_resident *resident, const struct qr_section *section, struct qr_old *old);
void qr_old_retire(struct qr_resident *resident, struct qr_old *old);
void qr_old_reclaim(struct qr_resident *resident);
int qr_old_new(struct qr_resident *resident, enum qr_old_kind kind, struct qr_resident_page *page,
               uint64_t index, struct qr_old **old);
void qr_old_discard(struct qr_resident *resident, struct qr_old *old); /* was not used */
void qr_pin_release(struct qr_resident *resident, struct qr_pin *pin);

/* With the lock held: waits for the sections that are open now; if `unshared`, only for those that
 * do not look for readers. STATE if the calling thread has one open. */
int qr_resident_wait(struct qr_resident *resident, int unshared);

/* resident_section.c. The page, which is the section's from here on. */
int qr_section_take(struct qr_section *section, uint64_t id, struct qr_resident_page **page);

/* resident_change.c. A table of blocks large enough for `size` bytes. */
int qr_page_make_table(struct qr_section *section, struct qr_resident_page *page, uint64_t size);

/* resident_blocks.c. Touch makes a block of a page that the section has ready to be changed; then
 * settle, once for all that were touched. */
int qr_block_touch(struct qr_section *section, struct qr_resident_page *page, uint64_t index);
void qr_block_settle(struct qr_section *section);
/* Prepares a block that has bytes for drop, which makes it zeros and cannot fail. */
int qr_block_prepare_drop(struct qr_section *section, struct qr_resident_page *page, uint64_t index,
                          struct qr_old **old);
void qr_block_drop(struct qr_section *section, struct qr_old *old);

#endif
