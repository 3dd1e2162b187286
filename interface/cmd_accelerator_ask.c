/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow accelerator --sync`, `--label`, `--status`, `--stop`: asks the keeper of a directory over
 * its socket. The socket is beside the log or beside the cache; with both, the second is a link.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accelerator/cache_reader.h"
#include "accelerator/control_client.h"
#include "interface/cmd_accelerator.h"
#include "interface/report.h"
#include "runtime/error.h"
#include "runtime/os.h"

int accelerator_default_log(const char *path, char **log)
{
    static const char suffix[] = ".tlog";
    char *real = realpath(path, NULL);
    if (!real)
        return qr_fail_errno(errno, "%s", qr_quotez(path));
    size_t length = strlen(real);
    *log = qr_malloc(length + sizeof suffix);
    if (*log) {
        memcpy(*log, real, length);
        memcpy(*log + length, suffix, sizeof suffix);
    }
    free(real);
    return *log ? 0 : qr_fail(QALLOW_E_NO_MEMORY, "no memory for a path");
}

static cJSON *request_of(const struct qi_context *context, const struct accelerator *a)
{
    cJSON *request = cJSON_CreateObject();
    const char *what = a->stop ? "stop" : a->status ? "status" : a->label ? "label" : "sync";
    cJSON_AddStringToObject(request, "request", what);
    if (a->label)
        cJSON_AddStringToObject(request, "name", a->label);
    if (qi_given(context, "timeout"))
        cJSON_AddNumberToObject(request, "timeout_ms", (double)(a->timeout / 1000000));
    return request;
}

static int is_whole(double value) { return value == (double)(int64_t)value; }

/* The answer's members behind schema and version, or one a line as text. */
static int print_answer(const struct qi_context *context, const struct accelerator *a,
                        const char *text)
{
    cJSON *answer = cJSON_Parse(text), *item;
    if (!answer)
        return qr_fail(QALLOW_E_SERIALIZATION, "the recorder's answer is not JSON");
    cJSON_DeleteItemFromObjectCaseSensitive(answer, "ok");
    cJSON *line = context->json ? qi_json_begin(context) : NULL;
    while ((item = answer->child)) {
        cJSON_DetachItemViaPointer(answer, item);
        if (context->json) {
            cJSON_AddItemToObject(line, item->string, item);
            continue;
        }
        if (a->status)
            printf("%s: ", item->string);
        if (cJSON_IsNumber(item))
            printf("%.*f\n", is_whole(item->valuedouble) ? 0 : 4, item->valuedouble);
        else
            puts(cJSON_IsString(item) ? item->valuestring : cJSON_IsTrue(item) ? "yes" : "no");
        cJSON_Delete(item);
    }
    cJSON_Delete(answer);
    return context->json ? qi_json_end(line) : 0;
}

static int ask(struct qi_context *context, const struct accelerator *a, const char *beside)
{
    char *answer = NULL;
    cJSON *request = request_of(context, a);
    char *text = cJSON_PrintUnformatted(request);
    cJSON_Delete(request);
    if (!text)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the request");
    int result = qa_control_request(beside, text, &answer);
    cJSON_free(text);
    if (result == 0)
        result = print_answer(context, a, answer);
    qr_free(answer);
    return result;
}

/* The keeper of `source`, or (NULL) of the nearest cached directory at or above the present one. */
static int ask_by_cache(struct qi_context *context, const struct accelerator *a, const char *source)
{
    struct qallow_cache *cache;
    int result = source ? qallow_cache_open(source, &cache) : qallow_cache_open_above(".", &cache);
    if (result == 0) {
        result = ask(context, a, qa_cache_reader_path(cache));
        qallow_cache_close(cache);
    }
    return result;
}

int accelerator_ask(struct qi_context *context, const struct accelerator *a)
{
    const char *source = a->file ? a->file : a->watch.count ? a->watch.items[0] : NULL;
    if (a->log)
        return ask(context, a, a->log);
    if (!source)
        return ask_by_cache(context, a, NULL);
    char *log;
    int result = accelerator_default_log(source, &log);
    if (result < 0)
        return result;
    result = ask(context, a, log);
    if (result == QALLOW_E_UNAVAILABLE) { /* it has no log, or one that lies elsewhere */
        result = ask_by_cache(context, a, source);
        if (result == QALLOW_E_UNAVAILABLE)
            qr_fail(result, "no recorder is running on %s", qr_quotez(log));
    }
    qr_free(log);
    return result;
}
