/* SPDX-License-Identifier: Apache-2.0 */
/* Turns a good log into one whose frames are right and whose commit frame means nothing. */
#ifndef TESTS_API_RELINK_H
#define TESTS_API_RELINK_H

/* Spoils the body of every commit frame and makes all sums and links of the frames right again. */
void relink_with_senseless_commit(const char *log);

#endif
