/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A claim is a locked file beside the target, see claim.h. It is removed while its lock is held, so
 * whoever gets a lock has to look whether the file still has its name: QR_OPEN_CLAIM does. One that
 * a kill left behind has no lock and is taken over.
 */
#include "runtime/claim.h"

#include <errno.h>

#include "runtime/error.h"
#include "runtime/store_internal.h"

int qr_claim_take(struct qr_claim *claim, const struct qr_os *os, const char *target)
{
    *claim = (struct qr_claim){.os = os, .file = -1};
    char *path = qr_path_with(target, QR_CLAIM_ENDING);
    if (!path)
        return QALLOW_E_NO_MEMORY;
    claim->file = os->open(os->context, path, QR_OPEN_CLAIM, 0600);
    if (claim->file >= 0) {
        claim->path = path;
        return 0;
    }
    qr_free(path);
    return claim->file == -EAGAIN
               ? qr_fail(QALLOW_E_BUSY, "%s is being written by somebody else", qr_quotez(target))
               : 0;
}

void qr_claim_release(struct qr_claim *claim)
{
    if (!claim->path)
        return;
    claim->os->unlink(claim->os->context, claim->path);
    claim->os->close(claim->os->context, claim->file);
    qr_free(claim->path);
    claim->path = NULL;
}
