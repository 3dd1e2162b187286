/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that is written about a command from its tables: help, manual, completion, JSON. */
#ifndef QI_DESCRIBE_H
#define QI_DESCRIBE_H

#include <cjson/cJSON.h>
#include <stdio.h>

#include "interface/options.h"

/* `path` is the command's full name, "qallow checkpoint save". */
void qi_print_help(FILE *out, const char *path, const struct qi_command *command);
/* A page of the manual in section 1, in roff with the man macros. */
void qi_print_manual(FILE *out, const char *path, const struct qi_command *command);
/* The table itself, for programs. */
void qi_describe_json(cJSON *object, const char *path, const struct qi_command *command);

enum qi_shell { QI_BASH, QI_ZSH, QI_FISH };
void qi_print_completion(FILE *out, const struct qi_command *root, enum qi_shell shell);

/* The word for an option's value in help: its argument, or one made of its kind. NULL for flags. */
const char *qi_argument_word(const struct qi_option *option);
/* "[options] LOG [NAME...]": what follows the path in a usage line. */
void qi_print_synopsis(FILE *out, const struct qi_command *command);
/* "what it does (default: x; a, b or c)": the help with what the table adds to it. */
void qi_option_help(const struct qi_option *option, char *text, size_t size);
/* Visible parts. The i-th after `*i`; NULL at the end. */
const struct qi_option *qi_next_visible(const struct qi_command *command, size_t *i);
/* Where what is typed for an option comes from. */
enum qi_source { QI_FROM_NOWHERE, QI_FROM_FILES, QI_FROM_DIRECTORIES, QI_FROM_CHOICES };
enum qi_source qi_source_of(const struct qi_option *option);

#endif
