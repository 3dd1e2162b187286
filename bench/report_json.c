/* SPDX-License-Identifier: Apache-2.0 */
/* The report as JSON, which is also the file of a baseline. docs/performance/README.md says what
 * the members mean. */
#include "bench/bench.h"

static void add_spread(cJSON *object, const char *name, const struct qm_spread *spread)
{
    cJSON *item = cJSON_AddObjectToObject(object, name);
    cJSON_AddNumberToObject(item, "median", spread->median);
    cJSON_AddNumberToObject(item, "low", spread->low);
    cJSON_AddNumberToObject(item, "high", spread->high);
    cJSON_AddNumberToObject(item, "minimum", spread->minimum);
    cJSON_AddNumberToObject(item, "maximum", spread->maximum);
    cJSON_AddNumberToObject(item, "confidence", spread->confidence);
    cJSON_AddNumberToObject(item, "outliers", spread->outliers);
}

static void add_target(cJSON *object, const struct qm_result *result)
{
    const struct qm_target *target = &result->what->target;
    int reached = qm_result_reached(result);
    if (target->judged == QM_NOTHING)
        return;
    cJSON *item = cJSON_AddObjectToObject(object, "target");
    cJSON_AddStringToObject(item, "of", target->judged == QM_RATIO ? "ratio" : "figure");
    cJSON_AddStringToObject(item, "is",
                            result->what->unit->lower_is_better ? "at most" : "at least");
    cJSON_AddNumberToObject(item, "value", target->value);
    if (reached >= 0)
        cJSON_AddBoolToObject(item, "reached", reached);
}

static cJSON *result_json(const struct qm_result *result)
{
    const struct qm_case *what = result->what;
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "name", what->name);
    cJSON_AddStringToObject(object, "title", what->title);
    cJSON_AddStringToObject(object, "what", what->what);
    cJSON_AddStringToObject(object, "unit", what->unit->name);
    cJSON_AddBoolToObject(object, "lower_is_better", what->unit->lower_is_better);
    cJSON_AddNumberToObject(object, "size", (double)result->size);
    cJSON_AddNumberToObject(object, "threads", result->threads);
    cJSON_AddNumberToObject(object, "runs", result->runs);
    if (result->status < 0) {
        cJSON_AddStringToObject(object, "error", result->detail);
        return object;
    }
    add_spread(object, "figure", &result->figure);
    if (what->reference) {
        cJSON_AddStringToObject(object, "reference_name", what->reference);
        add_spread(object, "reference", &result->reference);
        add_spread(object, "ratio", &result->ratio);
    }
    add_target(object, result);
    return object;
}

static void add_machine(cJSON *object, const struct qm_machine *machine)
{
    cJSON *item = cJSON_AddObjectToObject(object, "machine");
    cJSON_AddStringToObject(item, "cpu", machine->cpu);
    cJSON_AddNumberToObject(item, "cpus", machine->cpus);
    cJSON_AddStringToObject(item, "memory", machine->memory);
    cJSON_AddStringToObject(item, "kernels", machine->kernels);
    cJSON_AddStringToObject(item, "system", machine->kernel);
    cJSON_AddStringToObject(item, "compiler", machine->compiler);
    cJSON_AddNumberToObject(item, "load", machine->load);
}

cJSON *qm_report_json(const struct qm_report *report)
{
    cJSON *object = cJSON_CreateObject();
    char time[QM_TIME_MAX];
    cJSON_AddStringToObject(object, "schema", "qallow.bench");
    cJSON_AddNumberToObject(object, "version", 1);
    cJSON_AddStringToObject(object, "qallow", report->machine.version);
    cJSON_AddStringToObject(object, "time", qm_format_time(report->time_ns, time));
    cJSON_AddStringToObject(object, "tier", report->tier == QM_SMOKE ? "smoke" : "full");
    cJSON_AddStringToObject(object, "clock", report->cpu_time ? "cpu" : "wall");
    add_machine(object, &report->machine);
    cJSON *cases = cJSON_AddArrayToObject(object, "cases");
    for (size_t i = 0; i < report->count; i++)
        cJSON_AddItemToArray(cases, result_json(&report->results[i]));
    return object;
}
