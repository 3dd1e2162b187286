/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory-resident pages: the bytes of pages, by id, in memory, changed by several threads while
 * others read.
 *
 * A page is a table of blocks of QR_RESIDENT_BLOCK bytes (the last one is as short as the page
 * ends); a block of zeros that was never written has no memory. So a page of at most 64 KiB is one
 * run of bytes, a larger one can grow for ever without being copied, and a snapshot costs what
 * changes after it.
 *
 * Who may do what:
 *   - A *section* is where pages are changed: begin with an epoch, change, end. One thread uses a
 *     section at a time; any number of sections are open at once, on different pages: the first
 *     change takes the page for the section until its end, and another section gets QALLOW_E_BUSY.
 *     Epochs are given by the caller, in the order of the calls of begin; there the commit path's
 *     ordered section ends and the parallel part begins.
 *   - A *reader* (one for each thread that reads) copies ranges out, of the newest content or of a
 *     snapshot. It takes no lock.
 *   - A *snapshot* pins an epoch: it shows all sections up to that epoch and none after it, until
 *     it is released, to any number of readers.
 *
 * What a reader sees of the newest content: of each block, all that the sections which had it
 * have done up to the end of one of them, never a part of a section. Blocks are read one after
 * the other: a range of several blocks need not be of one moment (a snapshot's is). Size and
 * existence of a page change at once, not at the section's end. While a section has changed a block
 * and has not ended, who reads the newest content of that block waits (spins, then yields);
 * sections are short. Readers of a snapshot never wait and never try again: a block that a snapshot
 * may want is copied before it is changed.
 *
 * How it stays free of data races without reading words one by one: see the head of resident.c.
 *
 * Misuse is an error with the page and the offset in its detail: an unknown id or one that was
 * freed (PAGE_NOT_FOUND), an id that is taken (PAGE_EXISTS), a range beyond the end (ARGUMENT), a
 * page of another open section (BUSY), a page that a later epoch has changed (STATE). Nothing has
 * been changed then. Thread-safety: as said at each function; "any thread" where nothing is said.
 */
#ifndef QR_RESIDENT_H
#define QR_RESIDENT_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/pool.h"

enum { QR_RESIDENT_BLOCK = 64 << 10 };
#define QR_RESIDENT_ID_MAX   ((UINT64_C(1) << 36) - 1)
#define QR_RESIDENT_SIZE_MAX (UINT64_C(1) << 43) /* of a page: 2^27 blocks */

struct qr_resident;          /* the pages */
struct qr_section;           /* changes them */
struct qr_resident_reader;   /* reads them */
struct qr_resident_snapshot; /* holds one epoch of them */

/* An empty set of pages in *resident, before epoch 1. Memory comes from `pool`, which must live
 * longer; NULL: from a pool of its own. NO_MEMORY, and what qr_pool_create returns. */
int qr_resident_create(struct qr_pool *pool, struct qr_resident **resident);
/* Frees all of it. All sections, readers and snapshots must have been destroyed: STATE otherwise,
 * and nothing happens. NULL is legal. */
int qr_resident_destroy(struct qr_resident *resident);

/* ---------------------------------------------------------------- changing */

/* A section for one thread, to be used again and again. NO_MEMORY. */
int qr_section_create(struct qr_resident *resident, struct qr_section **section);
/* Ends it if it is open. NULL is legal. */
void qr_section_destroy(struct qr_section *section);

/* Opens the section for changes of `epoch`. Epochs do not go back: `epoch` is at least that of the
 * last begin (several sections may work on one epoch, on different pages) and later than any
 * snapshot (STATE). STATE too if it is open. Takes a lock for a moment. */
int qr_section_begin(struct qr_section *section, uint64_t epoch);
/* Shows the changes to readers and lets go of the pages. Cannot fail. Nothing is taken back: what
 * may fail (memory, BUSY) is done by qr_section_prepare. */
void qr_section_end(struct qr_section *section);

/* A page of `size` zeros. Ids are given in any order but are never used again; the table of ids
 * takes 8 bytes for each id up to the largest, so they should be dense. PAGE_EXISTS (also when the
 * page was freed), LIMIT (id or size too large), NO_MEMORY, STATE (section not open). */
int qr_section_create_page(struct qr_section *section, uint64_t id, uint64_t size);
/* The page is gone for readers of the newest content; snapshots keep it. Its memory is freed when
 * nobody can be reading it. PAGE_NOT_FOUND (also when freed before), BUSY, STATE, NO_MEMORY. */
int qr_section_free_page(struct qr_section *section, uint64_t id);
/* Another size; the page does not move. New bytes are zero. PAGE_NOT_FOUND, BUSY, STATE, LIMIT,
 * NO_MEMORY. */
int qr_section_resize(struct qr_section *section, uint64_t id, uint64_t size);

/* Does all that may fail for changes of this range, so that changing it cannot: takes the page, and
 * copies the blocks that a snapshot or a reader holds. To be called for all ranges first, where a
 * change must happen as a whole; it is also the faster way, since readers are looked for once for
 * all of them. PAGE_NOT_FOUND, BUSY, STATE, ARGUMENT (beyond the page), NO_MEMORY. */
int qr_section_prepare(struct qr_section *section, uint64_t id, uint64_t offset, uint64_t length);
/* The same for many ranges, in their order, up to the first that fails. Much faster than one after
 * the other where pages lie scattered: memory is fetched ahead. *done (may be NULL) is how many
 * were prepared. */
struct qr_range {
    uint64_t id, offset, length;
};
int qr_section_prepare_all(struct qr_section *section, const struct qr_range *ranges, size_t count,
                           size_t *done);
/* Overwrites a range. Prepares it first; on failure nothing has been changed. */
int qr_section_write(struct qr_section *section, uint64_t id, uint64_t offset, const void *bytes,
                     size_t length);
/* Zeroes a range. Whole blocks give their memory back. */
int qr_section_zero(struct qr_section *section, uint64_t id, uint64_t offset, uint64_t length);
/* Where the bytes of a range are, to be changed in place by a kernel until the section's end or its
 * next resize, zero or free of this page. The range lies in one block: from an offset,
 * QR_RESIDENT_BLOCK - offset % QR_RESIDENT_BLOCK bytes at most (ARGUMENT). */
int qr_section_edit(struct qr_section *section, uint64_t id, uint64_t offset, size_t length,
                    uint8_t **bytes);
/* The bytes from `offset` on, as the section itself sees them, to be read until the same moments;
 * *length is set to how many lie there in one run: to the end of the block or of the page, or fewer
 * where they are zeros without memory. Takes the page. At the end of the page *length is 0. */
int qr_section_view(struct qr_section *section, uint64_t id, uint64_t offset, const uint8_t **bytes,
                    size_t *length);
int qr_section_size(struct qr_section *section, uint64_t id, uint64_t *size);

/* ---------------------------------------------------------------- reading */

/* A reader for the calling thread (any one thread at a time). The first one of a set of pages waits
 * for the sections that are open, since they did not look for readers: the calling thread must
 * have none open (STATE). NO_MEMORY. */
int qr_resident_reader_create(struct qr_resident *resident, struct qr_resident_reader **reader);
void qr_resident_reader_destroy(struct qr_resident_reader *reader); /* NULL is legal */

/* Copies [offset, offset + length) of a page to `to`: of the newest content, or of `snapshot` if it
 * is not NULL. PAGE_NOT_FOUND (in that epoch), ARGUMENT (beyond the page's end; nothing was copied,
 * unless the page shrank meanwhile). */
int qr_resident_read(struct qr_resident_reader *reader, const struct qr_resident_snapshot *snapshot,
                     uint64_t id, uint64_t offset, void *to, size_t length);
/* The size of a page. PAGE_NOT_FOUND. */
int qr_resident_size(struct qr_resident_reader *reader, const struct qr_resident_snapshot *snapshot,
                     uint64_t id, uint64_t *size);

/* Pins the epoch of the last begin: waits until the sections open now have ended (the calling
 * thread must have none open: STATE); sections that begin meanwhile go on. NO_MEMORY. */
int qr_resident_snapshot_create(struct qr_resident *resident,
                                struct qr_resident_snapshot **snapshot);
uint64_t qr_resident_snapshot_epoch(const struct qr_resident_snapshot *snapshot);
/* Frees the copies that no other snapshot needs. No reader may be reading it. NULL is legal. */
void qr_resident_snapshot_release(struct qr_resident_snapshot *snapshot);

/* ---------------------------------------------------------------- figures */

struct qr_resident_stats {
    uint64_t pages, bytes;                             /* and their sizes' sum */
    uint64_t epoch;                                    /* of the last begin */
    uint64_t sections, readers, snapshots;             /* open ones */
    uint64_t copies, copy_bytes;                       /* blocks held for snapshots only */
    uint64_t copied_for_snapshots, copied_for_readers; /* blocks, since the beginning */
    uint64_t waiting, waiting_bytes; /* freed, but somebody may still be reading */
    uint64_t reader_waits;           /* times a reader found a block in change */
};
void qr_resident_stats(struct qr_resident *resident, struct qr_resident_stats *stats);

#endif
