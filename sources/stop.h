/* SPDX-License-Identifier: Apache-2.0 */
/* Whether to go on: asked by everything in this folder that can take long. */
#ifndef QS_STOP_H
#define QS_STOP_H

/* From now on `asked` decides, for the whole process: it returns 0, or a QALLOW_E_* with its detail
 * set, with which what is under way ends and leaves everything as it was. It is called often, from
 * any thread. NULL: nobody stops anything, as at the beginning. */
void qs_stop_when(int (*asked)(void));
int qs_stop(void);

#endif
