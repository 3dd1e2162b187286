/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large files of one tensor, and changes of them, for scripts/bench-tensors.sh. Deterministic.
 *
 *     patterns make FILE MEGABYTES 2|4          weights as they are: normal, BF16 or F32
 *     patterns change FILE PERCENT SEED new|ulp  in place: so many elements get a new weight, or
 *                                               move by the smallest steps
 *     patterns values OLD NEW                   the changed elements' new values on stdout, and the
 *                                               entropy of their positions in bytes on stderr
 *     patterns read FILE...                     reads them once
 */
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint64_t state = 88172645463325252u;

static uint64_t random_bits(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static double uniform(void) { return ((double)(random_bits() >> 11) + 1) * 0x1p-53; }

static uint32_t weight(unsigned width)
{
    float w = (float)(0.02 * sqrt(-2 * log(uniform())) * cos(2 * 3.14159265358979 * uniform()));
    uint32_t bits;
    memcpy(&bits, &w, 4);
    return width == 2 ? bits >> 16 : bits;
}

static void must(int condition, const char *what)
{
    if (!condition) {
        perror(what);
        exit(74);
    }
}

struct file {
    uint8_t *bytes, *data;
    size_t length, elements;
    unsigned width;
};

static struct file load(const char *path)
{
    struct file f = {NULL};
    uint64_t header;
    FILE *in = fopen(path, "rb");
    must(in && fseek(in, 0, SEEK_END) == 0, path);
    f.length = (size_t)ftell(in);
    rewind(in);
    f.bytes = malloc(f.length + 1);
    must(f.bytes && fread(f.bytes, 1, f.length, in) == f.length, path);
    fclose(in);
    f.bytes[f.length] = 0;
    memcpy(&header, f.bytes, 8);
    f.data = f.bytes + 8 + header;
    f.width = strstr((char *)f.bytes + 8, "BF16") ? 2 : 4;
    f.elements = (f.length - 8 - (size_t)header) / f.width;
    return f;
}

static void make(const char *path, size_t bytes, unsigned width)
{
    char header[256];
    FILE *out = fopen(path, "wb");
    must(out != NULL, path);
    int n = snprintf(header, sizeof header,
                     "{\"w\":{\"dtype\":\"%s\",\"shape\":[%zu],\"data_offsets\":[0,%zu]}}",
                     width == 2 ? "BF16" : "F32", bytes / width, bytes);
    uint64_t length = (uint64_t)n;
    fwrite(&length, 8, 1, out);
    fwrite(header, (size_t)n, 1, out);
    for (size_t i = 0; i < bytes / width; i++) {
        uint32_t w = weight(width);
        fwrite(&w, width, 1, out);
    }
    must(fclose(out) == 0, path);
}

static void change(const char *path, double share, uint64_t seed, int is_new)
{
    struct file f = load(path);
    state ^= seed * UINT64_C(0x9E3779B97F4A7C15);
    double per_gap = log1p(-share);
    for (double at = floor(log(uniform()) / per_gap); at < (double)f.elements;
         at += 1 + floor(log(uniform()) / per_gap)) {
        uint8_t *element = f.data + (size_t)at * f.width;
        uint32_t w = 0;
        memcpy(&w, element, f.width);
        uint32_t step = f.width == 2 ? 1 : 1 + (uint32_t)(random_bits() % 200);
        w = is_new ? weight(f.width) : random_bits() & 1 ? w + step : w - step;
        memcpy(element, &w, f.width);
    }
    FILE *out = fopen(path, "wb");
    must(out && fwrite(f.bytes, 1, f.length, out) == f.length && fclose(out) == 0, path);
}

static void values(const char *old_path, const char *new_path)
{
    struct file a = load(old_path), b = load(new_path);
    size_t changed = 0;
    for (size_t i = 0; i < b.elements; i++)
        if (memcmp(a.data + i * a.width, b.data + i * b.width, b.width) != 0) {
            fwrite(b.data + i * b.width, b.width, 1, stdout);
            changed++;
        }
    double p = (double)changed / (double)b.elements;
    double bits = p > 0 && p < 1 ? -(p * log2(p) + (1 - p) * log2(1 - p)) : 0;
    fprintf(stderr, "%.0f\n", bits * (double)b.elements / 8);
}

static void read_once(const char *path)
{
    static char buffer[512 << 10];
    int fd = open(path, O_RDONLY);
    must(fd >= 0, path);
    while (read(fd, buffer, sizeof buffer) > 0)
        ;
    close(fd);
}

int main(int count, char **words)
{
    if (count == 5 && strcmp(words[1], "make") == 0)
        make(words[2], (size_t)atol(words[3]) << 20, (unsigned)atoi(words[4]));
    else if (count == 6 && strcmp(words[1], "change") == 0)
        change(words[2], atof(words[3]) / 100, strtoull(words[4], NULL, 10),
               strcmp(words[5], "new") == 0);
    else if (count == 4 && strcmp(words[1], "values") == 0)
        values(words[2], words[3]);
    else if (count >= 3 && strcmp(words[1], "read") == 0)
        for (int i = 2; i < count; i++)
            read_once(words[i]);
    else
        return fprintf(stderr, "expected: patterns make|change|values|read ...\n"), 64;
    return 0;
}
