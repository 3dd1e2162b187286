/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Feeds the metrics from standard input and shows what the encoders make of them, for
 * test_text.py. Each line is "set|add|observe NAME VALUE" or "worker NAME WORKER VALUE"; values are
 * integers as the metrics keep them. "tree NAME" opens a tree, whose values come after it.
 *
 *     feed csv TIME_NS          the rows, with the header
 *     feed prometheus [PROCESS] the text
 *     feed write PATH [PROCESS] qt_prometheus_write(); prints its result
 *     feed write-as-nobody PATH the same without the rights of root
 *     feed replace PATH         writes in a loop until standard input ends, every metric of one
 *                               value being the number of the round; prints the first bad result
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "telemetry/encoder.h"

static int find(const char *name)
{
    for (unsigned m = 0; m < QT_METRIC_COUNT; m++) {
        if (strcmp(qt_descriptions[m].name, name) == 0)
            return (int)m;
    }
    fprintf(stderr, "no metric %s\n", name);
    exit(2);
}

static void feed(void)
{
    char line[256], verb[32], name[128];
    unsigned long long value, second;
    while (fgets(line, sizeof line, stdin)) {
        if (strncmp(line, "tree ", 5) == 0) {
            struct qt_tree *tree; /* stays open */
            line[strcspn(line, "\n")] = '\0';
            if (qt_tree_open(line + 5, &tree) < 0)
                exit(2);
            continue;
        }
        int words = sscanf(line, "%31s %127s %llu %llu", verb, name, &value, &second);
        if (words == 3 && strcmp(verb, "set") == 0) {
            qt_set(find(name), value);
        } else if (words == 3 && strcmp(verb, "add") == 0) {
            qt_add(find(name), value);
        } else if (words == 3 && strcmp(verb, "observe") == 0) {
            qt_observe_ns(find(name), value);
        } else if (words == 4 && strcmp(verb, "worker") == 0) {
            qt_worker_set(find(name), (unsigned)value, second);
        } else {
            fprintf(stderr, "what is: %s", line);
            exit(2);
        }
    }
}

static int show(struct qt_text *text)
{
    int whole = !text->failed && fwrite(text->bytes, 1, text->length, stdout) == text->length;
    qt_text_finish(text);
    return whole ? 0 : 1;
}

static int input_has_ended(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&input, 1, 0) > 0;
}

static int replace_for_ever(const char *path)
{
    int result = 0;
    for (uint64_t round = 1; result == 0 && !input_has_ended(); round++) {
        for (unsigned m = 0; m < QT_METRIC_COUNT; m++) {
            if (qt_descriptions[m].kind != QT_HISTOGRAM && !qt_is_of_workers(m))
                qt_set(m, strcmp(qt_descriptions[m].unit, "seconds") ? round : round * 1000000000);
        }
        result = qt_prometheus_write(path, NULL);
    }
    printf("%d\n", result);
    return 0;
}

int main(int argc, char **argv)
{
    struct qt_text text = {0};
    const char *verb = argc >= 2 ? argv[1] : "", *process = argc == 4 ? argv[3] : NULL;
    if (argc == 3 && strcmp(verb, "replace") == 0)
        return replace_for_ever(argv[2]);
    feed();
    if (argc == 3 && strcmp(verb, "csv") == 0) {
        qt_text_add(&text, "%s", qt_encoder_csv.header);
        qt_encoder_csv.encode(&text, strtoll(argv[2], NULL, 10));
        return show(&text);
    }
    if (argc == 2 && strcmp(verb, "prometheus") == 0) {
        qt_text_add(&text, "%s", qt_encoder_prometheus.header);
        qt_encoder_prometheus.encode(&text, 0);
        return show(&text);
    }
    if (argc == 3 && strcmp(verb, "prometheus") == 0) {
        qt_prometheus_encode(&text, argv[2]);
        return show(&text);
    }
    if (argc == 3 && strcmp(verb, "write-as-nobody") == 0 && geteuid() == 0 &&
        (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0)) {
        fprintf(stderr, "cannot become nobody: %s\n", strerror(errno));
        return 2;
    }
    if ((argc == 3 || argc == 4) && strncmp(verb, "write", 5) == 0)
        return printf("%d\n", qt_prometheus_write(argv[2], process)) > 0 ? 0 : 1;
    fputs("usage: see the head of feed.c\n", stderr);
    return 2;
}
