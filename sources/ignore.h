/* SPDX-License-Identifier: Apache-2.0 */
/* Patterns of files to leave out, with the meaning of gitignore(5). */
#ifndef QS_IGNORE_H
#define QS_IGNORE_H

#include <stddef.h>

struct qs_pattern;

/* Patterns in the order they were given; the last one that matches decides. Zero-initialise. */
struct qs_ignore {
    struct qs_pattern *patterns;
    size_t count, capacity;
};

enum { QS_PATTERN_MAX = 4096 }; /* bytes of one pattern */

/* One pattern: "!x" takes back, "x/" only directories, "/x" and "x/y" only at the base. An empty
 * one is nothing. 0, NO_MEMORY, or LIMIT if it is longer than QS_PATTERN_MAX. */
int qs_ignore_add(struct qs_ignore *ignore, const char *pattern);
/* The text of an ignore file: comments, empty lines, trailing blanks and \r are dropped. */
int qs_ignore_parse(struct qs_ignore *ignore, const char *text, size_t length);
void qs_ignore_finish(struct qs_ignore *ignore);

/* `path` is relative to the directory the patterns belong to. 1: left out, -1: taken back by a
 * "!" pattern, 0: no pattern matches. Says nothing about the directories above the path. */
int qs_ignore_match(const struct qs_ignore *ignore, const char *path, int is_directory);

#endif
