/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules of recording as a page of the log: text, one rule a line. It is written with the first
 * epoch and again only when the rules change, so that whoever restores in place can know what was
 * never recorded, and judges the directory by the same rules.
 */
#include <stdlib.h>
#include <string.h>

#include "runtime/digest.h"
#include "sources/path.h"
#include "sources/tree_internal.h"

enum { TEXT_MAX = 16 << 20, CACHE = 2 << 20 };

static const struct qr_page *config_page(const struct qr_state *state)
{
    const struct qr_page *page = qr_state_child(state, 0, QS_RULES_PAGE, strlen(QS_RULES_PAGE));
    return page && page->kind == QR_KIND_CONFIG ? page : NULL;
}

/* The text of the page, with a NUL behind it; from qr_malloc. */
static int read_text(struct qr_reader *reader, const struct qr_page *page, char **text)
{
    struct qr_content content = {0};
    if (page->size > TEXT_MAX)
        return qr_fail(QALLOW_E_LIMIT, "the rules in the log have %llu bytes",
                       (unsigned long long)page->size);
    if (!(*text = qr_malloc((size_t)page->size + 1)))
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the rules");
    int rc = qr_content_init(&content, page);
    if (rc == 0)
        rc = qr_content_read(reader, &content, 0, *text, (size_t)page->size);
    (*text)[page->size] = 0;
    qr_content_finish(&content);
    return rc;
}

int qs_config_put(struct qs_tree *tree, struct qr_reader *reader, struct qr_txn *txn,
                  struct qr_batch *batch)
{
    const struct qr_state *state = qr_store_state(tree->store);
    const struct qr_page *page = config_page(state);
    char *text = NULL, *old = NULL;
    size_t length = 0;
    uint64_t id = page ? page->id : 0, old_size = page ? page->size : 0;
    if (tree->file_name ||
        (!page && qr_state_child(state, 0, QS_RULES_PAGE, strlen(QS_RULES_PAGE))))
        return 0; /* one file has no rules; or the name is taken by somebody's page */
    int rc = qs_rules_text(&tree->rules, &text, &length);
    if (rc == 0 && page)
        rc = read_text(reader, page, &old);
    if (rc < 0 || (page && old_size == length && memcmp(old, text, length) == 0))
        goto out;
    if (!page) {
        struct qr_attributes attributes = {.mode = 0644};
        id = qr_txn_new_id(txn);
        rc = qr_batch_page_create(batch, id, 0, QS_RULES_PAGE, strlen(QS_RULES_PAGE),
                                  QR_KIND_CONFIG, &attributes);
    }
    struct qr_edit edit = {.old_length = old_size, .new_length = length, .source = QR_LITERAL,
                           .bytes = (const uint8_t *)text};
    struct qr_edits edits = {&edit, 1, 1};
    if (rc == 0)
        rc = qr_batch_delta(batch, id, 0, old_size, length, &edits, (const uint8_t *)old,
                            qr_cells_of(id, text, length));
out:
    qr_free(text);
    qr_free(old);
    return rc;
}

static int is_rule(const char *line, const char *word)
{
    return strncmp(line, word, strlen(word)) == 0;
}

static int parse_rule(struct qs_rules *rules, const char *line)
{
    static const char exclude[] = "exclude ";
    if (is_rule(line, exclude)) {
        char **grown = qr_realloc(rules->excludes,
                                  (rules->exclude_count + 1) * sizeof *rules->excludes);
        if (!grown)
            return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the rules");
        rules->excludes = grown;
        grown[rules->exclude_count] = qs_path_join("", line + sizeof exclude - 1);
        if (!grown[rules->exclude_count])
            return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the rules");
        rules->exclude_count++;
        return 0;
    }
    const char *end = strchr(line, ' ');
    uint64_t value;
    if (!end || !qs_parse_field(&end, " ", &value) || *end)
        return qr_fail(QALLOW_E_SERIALIZATION, "a rule in the log means nothing: \"%s\"",
                       qr_quotez(line));
    if (is_rule(line, "include-git "))
        rules->include_git = value != 0;
    else if (is_rule(line, "ignore-files "))
        rules->no_ignore_file = value == 0;
    else if (is_rule(line, "max-file-size "))
        rules->max_file_size = value;
    return 0; /* a rule of a later version: nothing that this one could do about it */
}

int qs_rules_of_log(struct qr_store *store, struct qs_rules *rules)
{
    struct qr_reader *reader = NULL;
    char *text = NULL;
    *rules = (struct qs_rules){0};
    const struct qr_page *page = config_page(qr_store_state(store));
    if (!page)
        return 0;
    int rc = qr_reader_create(store, CACHE, &reader);
    if (rc == 0)
        rc = read_text(reader, page, &text);
    for (char *line = text; rc == 0 && line && *line;) {
        char *end = strchr(line, '\n');
        if (end)
            *end = 0;
        rc = parse_rule(rules, line);
        line = end ? end + 1 : NULL;
    }
    qr_free(text);
    qr_reader_destroy(reader);
    if (rc < 0)
        qs_rules_finish(rules);
    return rc;
}
