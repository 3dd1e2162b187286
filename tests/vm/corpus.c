/* SPDX-License-Identifier: Apache-2.0 */
/* Gives what fuzzing has found worth keeping (corpus.py) to a fuzz target, without the fuzzer. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv)
{
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    uint32_t length;
    int count = 0;

    if (!file)
        return perror(argc == 2 ? argv[1] : "FILE"), 1;
    while (fread(&length, sizeof length, 1, file) == 1) {
        uint8_t *input = malloc(length ? length : 1); /* exactly, for the sanitizers */
        if (!input || fread(input, 1, length, file) != length)
            return printf("%s is cut off\n", argv[1]), 1;
        LLVMFuzzerTestOneInput(input, length);
        free(input);
        count++;
    }
    fclose(file);
    printf("%d inputs\n", count);
    return count == 0;
}
