/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tiny deterministic trainer, for real update patterns: a model of characters (embeddings of
 * eight, one hidden layer, the next one) learns a text with Adam, on one thread, with its own
 * random numbers. After every so many steps its weights are written as a safetensors file.
 *
 *     train DIRECTORY EPOCHS STEPS bf16|f32 RATE [WIDTH]  < TEXT
 *
 * Writes DIRECTORY/step-NNN.safetensors for NNN = 000 (before training) to EPOCHS. With bf16 the
 * weights are kept in 32 bits and rounded when they are written, as is usual: most steps are too
 * small to move most of the rounded ones. RATE is the learning rate after a tenth of the first
 * epoch's steps, WIDTH that of the hidden layer.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LETTERS = 128, EMBEDDING = 32, CONTEXT = 8, INPUT = CONTEXT * EMBEDDING, BATCH = 16 };
enum { TENSORS = 5 };

struct tensor {
    const char *name;
    int rows, columns;
    float *w, *gradient, *mean, *square;
};

struct model {
    int hidden;
    struct tensor t[TENSORS]; /* embedding, w1, b1, w2, b2 */
    float *h, *dh;
    float x[INPUT], dx[INPUT], p[LETTERS];
};

static uint64_t random_state = 88172645463325252u;

static uint64_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void *must(void *memory)
{
    if (!memory) {
        fprintf(stderr, "train: no memory\n");
        exit(71);
    }
    return memory;
}

static void make_tensor(struct tensor *t, const char *name, int rows, int columns, float scale)
{
    size_t n = (size_t)rows * (size_t)columns;
    *t = (struct tensor){name, rows, columns, must(calloc(n, sizeof(float))),
                         must(calloc(n, sizeof(float))), must(calloc(n, sizeof(float))),
                         must(calloc(n, sizeof(float)))};
    for (size_t i = 0; i < n; i++)
        t->w[i] = scale * ((float)(random_bits() >> 40) / (float)(1 << 23) - 1.0f);
}

static void make_model(struct model *m, int hidden)
{
    m->hidden = hidden;
    make_tensor(&m->t[0], "embedding.weight", LETTERS, EMBEDDING, 0.5f);
    make_tensor(&m->t[1], "hidden.weight", hidden, INPUT, 1.0f / sqrtf(INPUT));
    make_tensor(&m->t[2], "hidden.bias", 1, hidden, 0);
    make_tensor(&m->t[3], "output.weight", LETTERS, hidden, 1.0f / sqrtf((float)hidden));
    make_tensor(&m->t[4], "output.bias", 1, LETTERS, 0);
    m->h = must(calloc((size_t)hidden, sizeof(float)));
    m->dh = must(calloc((size_t)hidden, sizeof(float)));
}

/* What the model thinks of the letter after `context`; its loss. */
static float forward(struct model *m, const unsigned char *context, unsigned char next)
{
    float largest = -1e30f, sum = 0;
    for (int c = 0; c < CONTEXT; c++)
        memcpy(m->x + c * EMBEDDING, m->t[0].w + context[c] * EMBEDDING, EMBEDDING * sizeof(float));
    for (int i = 0; i < m->hidden; i++) {
        const float *w = m->t[1].w + (size_t)i * INPUT;
        float v = m->t[2].w[i];
        for (int j = 0; j < INPUT; j++)
            v += w[j] * m->x[j];
        m->h[i] = v > 0 ? v : 0;
    }
    for (int k = 0; k < LETTERS; k++) {
        const float *w = m->t[3].w + (size_t)k * (size_t)m->hidden;
        float v = m->t[4].w[k];
        for (int i = 0; i < m->hidden; i++)
            v += w[i] * m->h[i];
        m->p[k] = v;
        largest = v > largest ? v : largest;
    }
    for (int k = 0; k < LETTERS; k++)
        sum += m->p[k] = expf(m->p[k] - largest);
    for (int k = 0; k < LETTERS; k++)
        m->p[k] /= sum;
    return -logf(m->p[next] + 1e-30f);
}

static void backward(struct model *m, const unsigned char *context, unsigned char next)
{
    memset(m->dh, 0, (size_t)m->hidden * sizeof(float));
    memset(m->dx, 0, sizeof m->dx);
    for (int k = 0; k < LETTERS; k++) {
        float d = (m->p[k] - (k == next)) / BATCH;
        size_t row = (size_t)k * (size_t)m->hidden;
        m->t[4].gradient[k] += d;
        for (int i = 0; i < m->hidden; i++) {
            m->t[3].gradient[row + (size_t)i] += d * m->h[i];
            m->dh[i] += d * m->t[3].w[row + (size_t)i];
        }
    }
    for (int i = 0; i < m->hidden; i++) {
        size_t row = (size_t)i * INPUT;
        if (m->h[i] <= 0)
            continue;
        m->t[2].gradient[i] += m->dh[i];
        for (int j = 0; j < INPUT; j++) {
            m->t[1].gradient[row + (size_t)j] += m->dh[i] * m->x[j];
            m->dx[j] += m->dh[i] * m->t[1].w[row + (size_t)j];
        }
    }
    for (int c = 0; c < CONTEXT; c++)
        for (int j = 0; j < EMBEDDING; j++)
            m->t[0].gradient[context[c] * EMBEDDING + j] += m->dx[c * EMBEDDING + j];
}

/* Adam. */
static void update(struct model *m, int step, float rate)
{
    float c1 = 1 - powf(0.9f, (float)step), c2 = 1 - powf(0.999f, (float)step);
    for (int i = 0; i < TENSORS; i++) {
        struct tensor *t = &m->t[i];
        size_t n = (size_t)t->rows * (size_t)t->columns;
        for (size_t j = 0; j < n; j++) {
            float g = t->gradient[j];
            t->mean[j] = 0.9f * t->mean[j] + 0.1f * g;
            t->square[j] = 0.999f * t->square[j] + 0.001f * g * g;
            t->w[j] -= rate * (t->mean[j] / c1) / (sqrtf(t->square[j] / c2) + 1e-8f);
            t->gradient[j] = 0;
        }
    }
}

/* --- the file --- */

static void put_weights(FILE *file, const struct tensor *t, int is_bf16)
{
    size_t n = (size_t)t->rows * (size_t)t->columns;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &t->w[i], 4);
        if (is_bf16)
            bits = (bits + 0x7fff + (bits >> 16 & 1)) >> 16; /* to the nearest, ties to even */
        fwrite(&bits, is_bf16 ? 2 : 4, 1, file);
    }
}

static void save(const struct model *m, const char *directory, int epoch, int is_bf16)
{
    char path[4096], header[2048];
    size_t length = 0, at = 0;
    snprintf(path, sizeof path, "%s/step-%03d.safetensors", directory, epoch);
    for (int i = 0; i < TENSORS; i++) {
        const struct tensor *t = &m->t[i];
        size_t size = (size_t)t->rows * (size_t)t->columns * (is_bf16 ? 2 : 4);
        length += (size_t)snprintf(header + length, sizeof header - length,
                                   "%c\"%s\":{\"dtype\":\"%s\",\"shape\":[%d,%d],"
                                   "\"data_offsets\":[%zu,%zu]}",
                                   i ? ',' : '{', t->name, is_bf16 ? "BF16" : "F32", t->rows,
                                   t->columns, at, at + size);
        at += size;
    }
    header[length++] = '}';
    while (length % 8)
        header[length++] = ' ';
    FILE *file = fopen(path, "wb");
    uint64_t n = length;
    if (!file || !fwrite(&n, 8, 1, file) || !fwrite(header, length, 1, file)) {
        perror(path);
        exit(73);
    }
    for (int i = 0; i < TENSORS; i++)
        put_weights(file, &m->t[i], is_bf16);
    if (fclose(file)) {
        perror(path);
        exit(74);
    }
}

static size_t read_text(unsigned char *text, size_t room)
{
    size_t n = fread(text, 1, room, stdin);
    for (size_t i = 0; i < n; i++)
        text[i] &= LETTERS - 1;
    if (n <= CONTEXT) {
        fprintf(stderr, "train: no text on standard input\n");
        exit(66);
    }
    return n;
}

int main(int count, char **words)
{
    static unsigned char text[1 << 20];
    static struct model model;
    if (count < 6) {
        fprintf(stderr, "expected: train DIRECTORY EPOCHS STEPS bf16|f32 RATE [WIDTH] < TEXT\n");
        return 64;
    }
    int epochs = atoi(words[2]), steps = atoi(words[3]), is_bf16 = strcmp(words[4], "bf16") == 0;
    float rate = strtof(words[5], NULL);
    size_t length = read_text(text, sizeof text);
    make_model(&model, count > 6 ? atoi(words[6]) : 512);
    save(&model, words[1], 0, is_bf16);
    for (int step = 1; step <= epochs * steps; step++) {
        float loss = 0, warm = (float)step * 10 / (float)steps;
        for (int i = 0; i < BATCH; i++) {
            const unsigned char *at = text + random_bits() % (length - CONTEXT);
            loss += forward(&model, at, at[CONTEXT]);
            backward(&model, at, at[CONTEXT]);
        }
        update(&model, step, warm < 1 ? rate * warm : rate);
        if (step % steps == 0) {
            save(&model, words[1], step / steps, is_bf16);
            printf("step %d: loss %.3f\n", step, (double)loss / BATCH);
        }
    }
    return 0;
}
