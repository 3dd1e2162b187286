/* SPDX-License-Identifier: Apache-2.0 */
/*
 * checkkernels: compares every version of every kernel with the scalar reference, and times them.
 *
 *     checkkernels [--seed N] [--rounds N] [--filter TEXT]    exit status 0, or 1 if any differs
 *     checkkernels --bench [--json] [--filter TEXT]           GB/s beside memcpy, memcmp, memset
 *
 * Versions that this CPU cannot run are named, not passed over in silence. The AVX-512 version is
 * also built with emulated intrinsics, and what a device does is also run on the CPU, so that their
 * logic is compared everywhere.
 */
#include "tests/kernels/check.h"
#include "tests/kernels/device.h"

#include <cjson/cJSON.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#ifdef HAVE_EMULATED_AVX512
void qb_init_emulated_avx512(struct qb_kernels *table);
#endif

static void add_version(const char *name, void (*init)(struct qb_kernels *), uint32_t flags)
{
    struct ck_version *version = &ck_versions[ck_version_count++];
    version->name = name;
    qb_kernels_init(&version->table, flags);
    if (init != NULL)
        init(&version->table);
}

static void collect_versions(bool for_bench, bool quiet)
{
    static const struct {
        const char *name;
        uint32_t flag, flags;
    } sets[] = {
        {"avx2", QB_CPU_AVX2, QB_CPU_AVX2},
        {"avx512", QB_CPU_AVX512, QB_CPU_AVX2 | QB_CPU_AVX512},
    };
    ck_reference.name = "scalar";
    qb_kernels_init(&ck_reference.table, 0);
    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
        if (qb_cpu_detect() & sets[i].flag)
            add_version(sets[i].name, NULL, sets[i].flags);
        else if (!quiet)
            printf("SKIP %s: this CPU or its operating system does not offer it\n", sets[i].name);
    }
#ifdef HAVE_EMULATED_AVX512
    if (!for_bench)
        add_version("emulated-avx512", qb_init_emulated_avx512, 0);
#else
    if (!for_bench && !quiet)
        puts("SKIP emulated-avx512: built without SIMDe");
#endif
    if (for_bench)
        return;
    add_version("emulated-device", ck_init_emulated_device, 0);
    const char *missing = ck_cuda_missing();
    if (missing == NULL)
        add_version("cuda", ck_init_cuda, 0);
    else if (!quiet)
        printf("SKIP cuda: %s\n", missing);
}

static uint64_t any_seed(void)
{
    uint64_t seed = 0;
    const char *given = getenv("QALLOW_SEED");
    if (given != NULL)
        return strtoull(given, NULL, 0);
    if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
        return 1;
    return seed >> 32; /* short enough to type */
}

static unsigned run_checks(uint64_t seed, unsigned rounds, const char *filter, cJSON *results)
{
    const struct ck_check *const lists[] = {ck_copy_checks, ck_diff_checks, ck_apply_checks,
                                            ck_hash_checks, ck_batch_checks};
    unsigned failed = 0;
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        for (const struct ck_check *check = lists[i]; check->kernel != NULL; check++) {
            if (filter != NULL && strstr(check->kernel, filter) == NULL)
                continue;
            unsigned failures = ck_run_check(check, seed, rounds);
            failed += failures > 0;
            if (results == NULL) {
                printf("%s %s\n", failures == 0 ? "ok  " : "FAIL", check->kernel);
                continue;
            }
            cJSON *result = cJSON_CreateObject();
            cJSON_AddStringToObject(result, "kernel", check->kernel);
            cJSON_AddNumberToObject(result, "failures", failures);
            cJSON_AddItemToArray(results, result);
        }
    }
    return failed;
}

static void print_json(uint64_t seed, cJSON *results)
{
    cJSON *all = cJSON_CreateObject(), *versions = cJSON_CreateArray();
    char text[32];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)seed);
    cJSON_AddStringToObject(all, "schema", "qallow.kernels.check");
    cJSON_AddNumberToObject(all, "version", 1);
    cJSON_AddStringToObject(all, "seed", text);
    CK_EACH_VERSION(v)
    cJSON_AddItemToArray(versions, cJSON_CreateString(v->name));
    cJSON_AddItemToObject(all, "versions", versions);
    cJSON_AddItemToObject(all, "results", results);
    char *printed = cJSON_Print(all);
    puts(printed);
    cJSON_free(printed);
    cJSON_Delete(all);
}

static int usage(void)
{
    fputs("usage: checkkernels [--seed N] [--rounds N] [--filter TEXT] [--json] [--bench]\n"
          "for example: checkkernels --seed 7 --filter diff_runs\n",
          stderr);
    return 64;
}

static bool parse_number(const char *text, uint64_t *number)
{
    char *end;
    *number = strtoull(text, &end, 0);
    return *text >= '0' && *text <= '9' && *end == '\0';
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"seed", required_argument, NULL, 's'},   {"rounds", required_argument, NULL, 'r'},
        {"filter", required_argument, NULL, 'f'}, {"bench", no_argument, NULL, 'b'},
        {"json", no_argument, NULL, 'j'},         {0},
    };
    uint64_t seed = any_seed(), rounds = 1;
    const char *filter = NULL;
    bool bench = false, json = false;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        bool good = true;
        switch (option) {
        case 's':
            good = parse_number(optarg, &seed);
            break;
        case 'r':
            good = parse_number(optarg, &rounds) && rounds > 0 && rounds < 1000000;
            break;
        case 'f':
            filter = optarg;
            break;
        case 'b':
            bench = true;
            break;
        case 'j':
            json = true;
            break;
        default:
            good = false;
        }
        if (!good)
            return usage();
    }
    if (optind < argc)
        return usage();

    collect_versions(bench, json);
    if (bench) {
        ck_run_benches(filter, json);
        return 0;
    }
    if (!json)
        printf("seed %llu\n", (unsigned long long)seed);
    cJSON *results = json ? cJSON_CreateArray() : NULL;
    unsigned failed = run_checks(seed, (unsigned)rounds, filter, results);
    if (json)
        print_json(seed, results);
    return failed > 0;
}
