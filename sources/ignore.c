/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Patterns with the meaning of gitignore(5).
 *
 * A pattern is compiled to a list of tokens, each of which stands for one byte or for a star, and
 * matched by following all possible positions in the list at once, one bit each. The cost is
 * (length of the path) x (length of the pattern) / 64 whatever the pattern is: a hostile
 * "*a*a*a*b" cannot make a scan hang, as it does with backtracking.
 */
#include "sources/ignore.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

#include "runtime/error.h"
#include "runtime/os.h"

enum token_kind {
    TOKEN_BYTE,      /* exactly this byte */
    TOKEN_ONE,       /* ?: any byte but a slash */
    TOKEN_SET,       /* [...]: never a slash */
    TOKEN_STAR,      /* *: any bytes but slashes */
    TOKEN_TREE,      /* ** at the end: any bytes */
    TOKEN_LEVELS,    /* ** and slash: nothing, or any bytes and a slash */
    TOKEN_NEVER,     /* a malformed pattern matches nothing */
};

struct token {
    uint8_t kind, byte;
    uint32_t set; /* index of a byte set */
};

struct byte_set {
    uint64_t bits[4];
};

struct qs_pattern {
    struct token *tokens;
    struct byte_set *sets;
    uint32_t count, set_count;
    uint8_t negated, directory_only, anchored;
};

static int set_has(const struct byte_set *set, uint8_t byte)
{
    return (int)(set->bits[byte >> 6] >> (byte & 63) & 1);
}

static void set_add(struct byte_set *set, unsigned first, unsigned last)
{
    for (unsigned b = first; b <= last; b++)
        set->bits[b >> 6] |= UINT64_C(1) << (b & 63);
}

/* Adds a named class such as "alpha"; 0 if there is none of that name. */
static int set_add_class(struct byte_set *set, const char *name, size_t length)
{
    static const struct {
        const char *name;
        int (*has)(int);
    } classes[] = {{"alnum", isalnum}, {"alpha", isalpha}, {"blank", isblank}, {"cntrl", iscntrl},
                   {"digit", isdigit}, {"graph", isgraph}, {"lower", islower}, {"print", isprint},
                   {"punct", ispunct}, {"space", isspace}, {"upper", isupper},
                   {"xdigit", isxdigit}};
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (strlen(classes[i].name) == length && memcmp(classes[i].name, name, length) == 0) {
            for (unsigned b = 0; b < 128; b++)
                if (classes[i].has((int)b))
                    set_add(set, b, b);
            return 1;
        }
    return 0;
}

/* Reads "[...]" at p. Returns the byte behind it, or NULL if it is malformed. */
static const char *parse_set(const char *p, const char *end, struct byte_set *set)
{
    *set = (struct byte_set){{0}};
    int negated = 0;
    unsigned previous = 0; /* start of a possible range; 0: none */
    p++;
    if (p < end && (*p == '!' || *p == '^')) {
        negated = 1;
        p++;
    }
    for (int first = 1; p < end && (first || *p != ']'); first = 0) {
        unsigned c = (uint8_t)*p++;
        if (c == '\\') {
            if (p == end)
                return NULL;
            c = (uint8_t)*p++;
            set_add(set, c, c);
        } else if (c == '-' && previous && p < end && *p != ']') {
            c = (uint8_t)*p++;
            if (c == '\\') {
                if (p == end)
                    return NULL;
                c = (uint8_t)*p++;
            }
            set_add(set, previous, c);
            c = 0;
        } else if (c == '[' && p < end && *p == ':') {
            const char *close = memchr(p, ']', (size_t)(end - p));
            if (!close)
                return NULL;
            if (close - p < 2 || close[-1] != ':') { /* not a class: an ordinary bracket */
                set_add(set, c, c);
            } else {
                if (!set_add_class(set, p + 1, (size_t)(close - p) - 2))
                    return NULL;
                p = close + 1;
                c = 0;
            }
        } else {
            set_add(set, c, c);
        }
        previous = c;
    }
    if (p >= end)
        return NULL;
    if (negated)
        for (int i = 0; i < 4; i++)
            set->bits[i] = ~set->bits[i];
    set->bits['/' >> 6] &= ~(UINT64_C(1) << ('/' & 63));
    return p + 1;
}

/* Stars at p: one, or more than one. Returns the byte behind what the token stands for. */
static const char *parse_stars(const char *start, const char *p, const char *end,
                               struct token *token)
{
    const char *behind = p;
    while (behind < end && *behind == '*')
        behind++;
    int whole_part = behind - p >= 2 && (p == start || p[-1] == '/');
    if (whole_part && behind == end) {
        token->kind = TOKEN_TREE;
    } else if (whole_part && *behind == '/') {
        token->kind = TOKEN_LEVELS;
        behind++;
    } else {
        token->kind = TOKEN_STAR;
    }
    return behind;
}

static void compile(struct qs_pattern *pattern, const char *p, size_t length)
{
    const char *start = p, *end = p + length;
    while (p < end) {
        struct token *token = &pattern->tokens[pattern->count++];
        *token = (struct token){TOKEN_BYTE, (uint8_t)*p, 0};
        if (*p == '*') {
            p = parse_stars(start, p, end, token);
        } else if (*p == '?') {
            token->kind = TOKEN_ONE;
            p++;
        } else if (*p == '[') {
            token->set = pattern->set_count;
            token->kind = TOKEN_SET;
            p = parse_set(p, end, &pattern->sets[pattern->set_count++]);
        } else if (*p == '\\') {
            p = p + 1 < end ? p + 1 : NULL;
            if (p)
                token->byte = (uint8_t)*p++;
        } else {
            p++;
        }
        if (!p) {
            token->kind = TOKEN_NEVER;
            return;
        }
    }
}

static void pattern_finish(struct qs_pattern *pattern)
{
    qr_free(pattern->tokens);
    qr_free(pattern->sets);
}

int qs_ignore_add(struct qs_ignore *ignore, const char *text)
{
    struct qs_pattern pattern = {0};
    if (*text == '!') {
        pattern.negated = 1;
        text++;
    }
    size_t length = strlen(text);
    if (length > QS_PATTERN_MAX)
        return qr_fail(QALLOW_E_LIMIT, "a pattern of %zu bytes is longer than %d", length,
                       QS_PATTERN_MAX);
    if (length && text[length - 1] == '/') {
        pattern.directory_only = 1;
        length--;
    }
    pattern.anchored = memchr(text, '/', length) != NULL;
    if (length && *text == '/') {
        text++;
        length--;
    }
    if (length == 0)
        return 0;
    if (QR_GROW(ignore->patterns, ignore->count, ignore->capacity) < 0)
        return QALLOW_E_NO_MEMORY;
    size_t brackets = 1;
    for (size_t i = 0; i < length; i++)
        brackets += text[i] == '[';
    pattern.tokens = qr_malloc(length * sizeof *pattern.tokens);
    pattern.sets = qr_malloc(brackets * sizeof *pattern.sets);
    if (!pattern.tokens || !pattern.sets) {
        pattern_finish(&pattern);
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the rules");
    }
    compile(&pattern, text, length);
    ignore->patterns[ignore->count++] = pattern;
    return 0;
}

/* Cuts blanks at the end of a line that no backslash protects. */
static void trim_blanks(char *line)
{
    char *blanks = NULL;
    for (char *p = line; *p; p++) {
        if (*p == ' ') {
            if (!blanks)
                blanks = p;
            continue;
        }
        blanks = NULL;
        if (*p == '\\' && !*++p)
            return;
    }
    if (blanks)
        *blanks = 0;
}

int qs_ignore_parse(struct qs_ignore *ignore, const char *text, size_t length)
{
    const char *end = text + length;
    if (length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        text += 3;
    while (text < end) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        size_t n = (size_t)((newline ? newline : end) - text);
        const char *next = text + n + 1;
        if (n && text[n - 1] == '\r')
            n--;
        if (n && n <= QS_PATTERN_MAX && *text != '#') { /* no path matches a longer one */
            char *line = qr_malloc(n + 1);
            if (!line)
                return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the rules");
            memcpy(line, text, n);
            line[n] = 0;
            trim_blanks(line);
            int rc = qs_ignore_add(ignore, line);
            qr_free(line);
            if (rc < 0)
                return rc;
        }
        text = next;
    }
    return 0;
}

void qs_ignore_finish(struct qs_ignore *ignore)
{
    for (size_t i = 0; i < ignore->count; i++)
        pattern_finish(&ignore->patterns[i]);
    qr_free(ignore->patterns);
    *ignore = (struct qs_ignore){0};
}

enum { WORDS_MAX = QS_PATTERN_MAX / 64 + 1 };

/* Which positions of the token list are possible; bit `count` is the end. */
struct positions {
    uint64_t words[WORDS_MAX];
};

/* Marks position i, and what can be reached from it without a byte. */
static void positions_add(const struct qs_pattern *pattern, struct positions *at, uint32_t i)
{
    for (;; i++) {
        at->words[i >> 6] |= UINT64_C(1) << (i & 63);
        if (i == pattern->count)
            return;
        uint8_t kind = pattern->tokens[i].kind;
        if (kind != TOKEN_STAR && kind != TOKEN_TREE && kind != TOKEN_LEVELS)
            return;
    }
}

static void positions_step(const struct qs_pattern *pattern, struct positions *to, uint32_t i,
                           uint8_t byte)
{
    const struct token *token = &pattern->tokens[i];
    switch ((enum token_kind)token->kind) {
    case TOKEN_BYTE:
        if (token->byte == byte)
            positions_add(pattern, to, i + 1);
        break;
    case TOKEN_ONE:
        if (byte != '/')
            positions_add(pattern, to, i + 1);
        break;
    case TOKEN_SET:
        if (set_has(&pattern->sets[token->set], byte))
            positions_add(pattern, to, i + 1);
        break;
    case TOKEN_STAR:
        if (byte != '/')
            positions_add(pattern, to, i);
        break;
    case TOKEN_TREE:
        positions_add(pattern, to, i);
        break;
    case TOKEN_LEVELS:
        /* The bytes before the slash: here, but not past this token. */
        to->words[i >> 6] |= UINT64_C(1) << (i & 63);
        if (byte == '/')
            positions_add(pattern, to, i + 1);
        break;
    case TOKEN_NEVER:
        break;
    }
}

static int pattern_matches(const struct qs_pattern *pattern, const char *path)
{
    struct positions a, b, *now = &a, *then = &b;
    uint32_t words = pattern->count / 64 + 1;
    memset(now->words, 0, words * sizeof *now->words);
    positions_add(pattern, now, 0);
    for (; *path; path++) {
        uint64_t any = 0;
        memset(then->words, 0, words * sizeof *then->words);
        for (uint32_t w = 0; w < words; w++)
            for (uint64_t bits = now->words[w]; bits; bits &= bits - 1) {
                uint32_t i = w * 64 + (uint32_t)__builtin_ctzll(bits);
                if (i < pattern->count)
                    positions_step(pattern, then, i, (uint8_t)*path);
                any = 1;
            }
        if (!any)
            return 0;
        struct positions *swap = now;
        now = then;
        then = swap;
    }
    return (int)(now->words[pattern->count >> 6] >> (pattern->count & 63) & 1);
}

int qs_ignore_match(const struct qs_ignore *ignore, const char *path, int is_directory)
{
    if (ignore->count == 0)
        return 0;
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    for (size_t i = ignore->count; i-- > 0;) {
        const struct qs_pattern *pattern = &ignore->patterns[i];
        if (pattern->directory_only && !is_directory)
            continue;
        if (pattern_matches(pattern, pattern->anchored ? path : name))
            return pattern->negated ? -1 : 1;
    }
    return 0;
}
