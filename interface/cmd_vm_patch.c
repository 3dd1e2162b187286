/* SPDX-License-Identifier: Apache-2.0 */
/* `qallow vm --patch`: which functions have been defined anew, which follow from them, and which
 * go on as they were because a call of them is in progress. */
#include <inttypes.h>
#include <stdio.h>

#include "interface/cmd_vm.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "vm/world.h"

enum list { DEFINED, STALE, KEPT, LISTS };

static int belongs(const struct qv_program *program, const uint32_t *ages, uint32_t i,
                   enum list list)
{
    const struct qv_function *f = &program->functions[i];

    if (i >= qv_current_count(program))
        return list == KEPT;
    return list == (f->age == program->world ? DEFINED : ages[i] == program->world ? STALE : LISTS);
}

static void print_list(const struct qv_program *program, const uint32_t *ages, enum list list,
                       const char *title)
{
    const char *before = title;

    for (uint32_t i = 0; i < program->function_count; i++)
        if (belongs(program, ages, i, list)) {
            printf("%s%s", before, program->functions[i].name);
            before = ", ";
        }
    if (before != title)
        putchar('\n');
}

static int has_nodes(const struct qv_program *program)
{
    size_t i = 0;

    while (i < program->page_count && !program->pages[i].is_derived)
        i++;
    return i < program->page_count;
}

static int print_text(const struct qv_program *program, const uint32_t *ages,
                      const struct qv_patched *patched)
{
    printf("world %" PRIu32, patched->world);
    if (patched->epoch)
        printf(" in epoch %" PRIu64, patched->epoch);
    printf(": %" PRIu32 " functions defined anew, %" PRIu32 " stale, %" PRIu32 " removed, %" PRIu32
           " still in progress\n",
           patched->defined, patched->stale, patched->gone, patched->kept);
    print_list(program, ages, DEFINED, "defined: ");
    print_list(program, ages, STALE, "stale: ");
    print_list(program, ages, KEPT, "in progress: ");
    if (has_nodes(program))
        printf("derived pages computed: %" PRIu64 "\n", patched->computed);
    return qi_stdout_check();
}

static int print_json(struct qi_context *context, const struct qv_program *program,
                      const uint32_t *ages, const struct qv_patched *patched)
{
    static const char *const names[LISTS] = {"defined", "stale", "in_progress"};
    cJSON *json = qi_json_begin(context);

    cJSON_AddStringToObject(json, "event", "patch");
    qi_json_u64(json, "world", patched->world);
    if (patched->epoch)
        qi_json_u64(json, "epoch", patched->epoch);
    qi_json_u64(json, "removed", patched->gone);
    qi_json_u64(json, "computed", patched->computed);
    for (enum list list = DEFINED; list < LISTS; list++) {
        cJSON *array = cJSON_AddArrayToObject(json, names[list]);
        for (uint32_t i = 0; i < program->function_count; i++)
            if (belongs(program, ages, i, list))
                cJSON_AddItemToArray(array, cJSON_CreateString(program->functions[i].name));
    }
    return qi_json_end(json);
}

int vm_say_patched(struct qi_context *context, const struct qv_program *program,
                   const struct qv_patched *patched)
{
    uint32_t *ages = qr_malloc(program->function_count * sizeof *ages);
    int rc = ages ? qv_reached_ages(program, ages)
                  : qr_fail(QALLOW_E_NO_MEMORY, "no memory for the functions' ages");

    if (rc == 0)
        rc = context->json ? print_json(context, program, ages, patched)
                           : print_text(program, ages, patched);
    qr_free(ages);
    return rc;
}
