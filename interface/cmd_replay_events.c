/* SPDX-License-Identifier: Apache-2.0 */
/* `qallow replay --events`: what happened, as lines. */
#include <string.h>

#include "interface/cmd_replay.h"
#include "qallow/event.h"
#include "runtime/event.h"

static const char *const names[] = {
    [QALLOW_EVENT_PAGE] = "page",
    [QALLOW_EVENT_DELTA] = "delta",
    [QALLOW_EVENT_COMMIT] = "commit",
    [QALLOW_EVENT_RECOMPUTE] = "recompute",
    [QALLOW_EVENT_CHECKPOINT] = "checkpoint",
    [QALLOW_EVENT_WATCHER] = "watcher",
    [QALLOW_EVENT_PROGRAM] = "program",
};
static const char *const changes[] = {"", "created", "attributes", "renamed", "freed"};
static const char *const reasons[] = {"source", "input", "definition", "request"};
enum { NAMES = sizeof names / sizeof *names, REASONS = sizeof reasons / sizeof *reasons };

const char *replay_parse_types(const char *text, void *field)
{
    static const char wrong[] = "page, delta, commit, recompute, checkpoint, watcher, program or "
                                "user, or several of them with commas";
    uint64_t types = 0;
    for (size_t n = strcspn(text, ",");; text += n + 1, n = strcspn(text, ",")) {
        uint64_t found = n == 4 && memcmp(text, "user", 4) == 0 ? UINT64_C(0xffffffff00000000) : 0;
        for (size_t i = 1; i < NAMES; i++)
            if (strlen(names[i]) == n && memcmp(text, names[i], n) == 0)
                found = QALLOW_EVENT_BIT(i);
        if (!found)
            return wrong;
        types |= found;
        if (!text[n])
            break;
    }
    memcpy(field, &types, sizeof types);
    return NULL;
}

struct printing {
    const struct qi_context *context;
    int rc; /* of stdout */
};

static const char *type_name(const struct qallow_event *e)
{
    return e->type < NAMES ? names[e->type] : "user";
}

/* --- JSON --- */

static void json_fields(cJSON *object, const struct qallow_event *e)
{
    if (e->page)
        qi_json_u64(object, "page", e->page);
    if (e->type == QALLOW_EVENT_PAGE) {
        cJSON_AddStringToObject(object, "change", changes[e->change]);
        if (e->name) {
            qi_json_u64(object, "parent", e->parent);
            qi_json_path(object, "name", e->name, e->name_length);
        }
    } else if (e->type == QALLOW_EVENT_DELTA) {
        qi_json_u64(object, "size", e->bytes);
        qi_json_u64(object, "offset", e->offset);
        qi_json_u64(object, "written", e->changed);
    } else if (e->type == QALLOW_EVENT_COMMIT) {
        qi_json_u64(object, "pages", e->bytes);
        qi_json_hex(object, "digest", e->digest, sizeof e->digest);
    } else if (e->type == QALLOW_EVENT_RECOMPUTE) {
        cJSON_AddStringToObject(object, "why", e->change < REASONS ? reasons[e->change] : "");
        if (e->parent)
            qi_json_u64(object, "cause", e->parent);
        qi_json_u64(object, "computed", e->bytes);
        qi_json_u64(object, "offset", e->offset);
        qi_json_u64(object, "changed", e->changed);
    } else if (e->type == QALLOW_EVENT_CHECKPOINT) {
        qi_json_u64(object, "exported", e->exported);
        qi_json_path(object, "path", e->name, e->name_length);
    } else {
        qi_json_path(object, "data", e->data, e->length);
    }
}

static int print_json(const struct qi_context *context, const struct qallow_event *e)
{
    cJSON *object = qi_json_begin(context);
    qi_json_u64(object, "epoch", e->epoch);
    qi_json_time(object, "time", e->time_ns);
    qi_json_i64(object, "time_ns", e->time_ns);
    cJSON_AddStringToObject(object, "type", type_name(e));
    if (e->type >= NAMES)
        qi_json_u64(object, "number", e->type);
    json_fields(object, e);
    return qi_json_end(object);
}

/* --- lines --- */

static void print_page(const struct qallow_event *e)
{
    printf("%llu %s", (unsigned long long)e->page, changes[e->change]);
    if (e->name) {
        fputs(": ", stdout);
        qi_print_name(stdout, e->name, e->name_length);
    }
    if (e->parent)
        printf(" in %llu", (unsigned long long)e->parent);
}

static void print_recompute(const struct qallow_event *e)
{
    printf("%llu by its %s", (unsigned long long)e->page,
           e->change < REASONS ? reasons[e->change] : "?");
    if (e->parent)
        printf(" %llu", (unsigned long long)e->parent);
    printf(", %llu bytes computed, ", (unsigned long long)e->bytes);
    if (e->changed)
        printf("%llu changed from %llu on", (unsigned long long)e->changed,
               (unsigned long long)e->offset);
    else
        fputs("the same", stdout);
}

static void print_fields(const struct qallow_event *e)
{
    char digest[QI_TEXT_MAX];
    switch (e->type) {
    case QALLOW_EVENT_PAGE:
        print_page(e);
        break;
    case QALLOW_EVENT_DELTA:
        printf("%llu: %llu bytes written from %llu on, size %llu", (unsigned long long)e->page,
               (unsigned long long)e->changed, (unsigned long long)e->offset,
               (unsigned long long)e->bytes);
        break;
    case QALLOW_EVENT_COMMIT:
        printf("%llu pages, digest %s", (unsigned long long)e->bytes,
               qi_format_hex(e->digest, sizeof e->digest, digest, sizeof digest));
        break;
    case QALLOW_EVENT_RECOMPUTE:
        print_recompute(e);
        break;
    case QALLOW_EVENT_CHECKPOINT:
        printf("epoch %llu to ", (unsigned long long)e->exported);
        qi_print_name(stdout, e->name, e->name_length);
        break;
    default:
        if (e->type >= NAMES)
            printf("%u ", (unsigned)e->type);
        qi_print_name(stdout, (const char *)e->data, e->length);
    }
}

static void print_event(void *context, const struct qallow_event *e)
{
    struct printing *p = context;
    char time[QI_TEXT_MAX];
    if (p->rc)
        return;
    if (p->context->json) {
        p->rc = print_json(p->context, e);
        return;
    }
    printf("%8llu  %s  %-10s ", (unsigned long long)e->epoch, qi_format_time(e->time_ns, time),
           type_name(e));
    print_fields(e);
    putchar('\n');
    p->rc = qi_stdout_check();
}

int replay_events(struct qi_context *context, const struct replay *replay, struct qr_store *store)
{
    struct qallow_event_filter filter = QALLOW_EVENT_FILTER_INIT;
    struct printing printing = {.context = context};
    struct qr_store_info info;
    uint64_t from, to;
    int rc = 0;

    filter.types = replay->types;
    qr_store_info(store, &info);
    from = info.first_epoch ? info.first_epoch : 0;
    to = info.last_epoch;
    if (from == 1)
        from = 0; /* what was emitted before the first epoch */
    if (qi_epoch_chosen(context)) {
        rc = qi_choose_epoch(context, store, &replay->choice, &from);
        to = from;
    }
    if (rc == 0)
        rc = qr_events_replay(store, from, to, &filter, print_event, &printing);
    return rc < 0 ? rc : printing.rc;
}
