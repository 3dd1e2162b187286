/* SPDX-License-Identifier: Apache-2.0 */
/* `qallow vm`: running, and saying what happened. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "interface/cmd_vm.h"
#include "interface/epochs.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "vm/session_internal.h"

/* --- the program --- */

static int read_program(const char *path, char **text, uint64_t *length)
{
    uint8_t *bytes = NULL;
    int rc = qv_read_file(path, QV_MAX_TEXT, &bytes, length);
    *text = (char *)bytes;
    return rc;
}

/* A wrong program: where, the line and a caret, as compilers do. */
static int report_source(struct qi_context *context, const struct qv_source_error *error)
{
    size_t marks = error->length < 100 ? error->length : 100;

    qi_error(context, "%s", qallow_error_detail());
    if (error->text[0] && !context->quiet) {
        fprintf(stderr, "    %s\n    %*s", error->text, (int)error->caret, "");
        for (size_t i = 0; i < marks; i++)
            fputc('^', stderr);
        fputc('\n', stderr);
    }
    return QI_DAMAGED;
}

static int write_text(void *context, const char *text, size_t length)
{
    (void)context;
    return fwrite(text, 1, length, stdout) == length ? 0 : qi_stdout_check();
}

int vm_reference(void) { return qv_reference(write_text, NULL); }

static int say_verified(struct qi_context *context, const struct qv_program *program)
{
    size_t words = 0;

    for (size_t i = 0; i < program->function_count; i++)
        words += program->functions[i].word_count;
    if (context->json) {
        cJSON *json = qi_json_begin(context);
        qi_json_u64(json, "functions", program->function_count);
        qi_json_u64(json, "words", words);
        qi_json_u64(json, "pages", program->page_count);
        qi_json_u64(json, "memory", qv_program_memory(program));
        qi_json_u64(json, "fuel", program->fuel);
        return qi_json_end(json);
    }
    printf("%zu functions of %zu words, %zu pages, %" PRIu64 " bytes of memory: verified\n",
           program->function_count, words, program->page_count, qv_program_memory(program));
    return 0;
}

int vm_inspect(struct qi_context *context, const struct vm *vm)
{
    struct qv_source_error error = {.line = 0};
    struct qv_program *program = NULL;
    char *text = NULL;
    uint64_t length = 0;
    int rc = read_program(vm->program, &text, &length);

    if (rc < 0)
        return rc;
    rc = qv_assemble(text, length, vm->program, &program, &error);
    if (rc == QALLOW_E_ARGUMENT)
        rc = report_source(context, &error);
    else if (rc == 0)
        rc =
            vm->verify ? say_verified(context, program) : qv_disassemble(program, write_text, NULL);
    qv_program_destroy(program);
    qr_free(text);
    return rc;
}

/* --- saying --- */

static void say_value(const struct qv_emit *emit)
{
    double value, back = 0;
    char text[40];

    memcpy(&value, &emit->value, sizeof value);
    if (emit->kind == QV_EMIT_I64) {
        printf("%" PRId64, (int64_t)emit->value);
    } else if (emit->kind == QV_EMIT_U64) {
        printf("%" PRIu64, emit->value);
    } else { /* the shortest that reads as the same number */
        for (int digits = 1; digits <= 17; digits++) {
            snprintf(text, sizeof text, "%.*g", digits, value);
            if (qv_read_float(text, &back) && memcmp(&back, &value, sizeof back) == 0)
                break;
        }
        fputs(isnan(value) ? "nan" : text, stdout);
    }
}

static void json_value(cJSON *json, const struct qv_emit *emit)
{
    double value;

    memcpy(&value, &emit->value, sizeof value);
    if (emit->kind == QV_EMIT_I64)
        qi_json_i64(json, "value", (int64_t)emit->value);
    else if (emit->kind == QV_EMIT_U64)
        qi_json_u64(json, "value", emit->value);
    else if (isfinite(value))
        cJSON_AddNumberToObject(json, "value", value);
    else
        cJSON_AddStringToObject(json, "value", isnan(value) ? "nan" : value < 0 ? "-inf" : "inf");
}

int vm_say_emitted(struct qi_context *context, const struct qv_machine *m)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < m->emit_count; i++) {
        const char *name = m->program->names[m->emits[i].name].text;
        if (context->json) {
            cJSON *json = qi_json_begin(context);
            cJSON_AddStringToObject(json, "event", "emit");
            qi_json_u64(json, "tick", m->tick - 1);
            cJSON_AddStringToObject(json, "name", name);
            json_value(json, &m->emits[i]);
            rc = qi_json_end(json);
        } else {
            printf("%s = ", name);
            say_value(&m->emits[i]);
            putchar('\n');
            rc = qi_stdout_check();
        }
    }
    return rc;
}

static int digest_text(struct qallow_store *store, uint64_t epoch, char text[QI_TEXT_MAX])
{
    struct qallow_epoch info = QALLOW_EPOCH_INIT;
    int rc = qallow_epoch_get(store, epoch, &info);

    if (rc == 0)
        qi_format_hex(info.digest, sizeof info.digest, text, QI_TEXT_MAX);
    return rc;
}

static int say_end(struct qi_context *context, struct qv_session *session, uint64_t ticks)
{
    const struct qv_machine *m = qv_session_machine(session);
    struct qallow_store *store = qv_session_store(session);
    uint64_t epoch = store ? qallow_view_epoch(qallow_newest(store)) : 0;
    char digest[QI_TEXT_MAX] = "";
    int rc = store ? digest_text(store, epoch, digest) : 0;

    if (rc < 0)
        return rc;
    if (context->json) {
        cJSON *json = qi_json_begin(context);
        cJSON_AddStringToObject(json, "event", "end");
        qi_json_u64(json, "ticks", ticks);
        qi_json_u64(json, "tick", m->tick - 1);
        cJSON_AddBoolToObject(json, "halted", m->halted);
        qi_json_u64(json, "fuel", m->fuel_used);
        if (store) {
            qi_json_u64(json, "epoch", epoch);
            cJSON_AddStringToObject(json, "digest", digest);
        }
        return qi_json_end(json);
    }
    printf("%s after tick %" PRIu64 ", %" PRIu64 " fuel", m->halted ? "halted" : "stopped",
           m->tick - 1, m->fuel_used);
    if (store)
        printf(", epoch %" PRIu64 ", digest %s", epoch, digest);
    putchar('\n');
    return qi_stdout_check();
}

/* --- running --- */

int vm_interrupted(void *context)
{
    (void)context;
    return qi_signal_received() != 0;
}

/* A program that has halted still has derived pages, which follow its inputs. */
static int may_go_on(const struct qv_machine *m, const struct vm *vm)
{
    for (size_t i = 0; vm->follow && i < m->program->page_count; i++)
        if (m->program->pages[i].is_derived)
            return 1;
    return !m->halted;
}

/* Ticks until the program halts, enough have been made, or somebody asks to stop. What was done is
 * said in any case. */
static int run_ticks(struct qi_context *context, const struct vm *vm, struct qv_session *session,
                     const struct vm_watch *watch, struct vm_meter *meter, struct vm_source *source)
{
    struct qv_machine *m = qv_session_machine(session);
    enum qv_stop stop = QV_TICK_DONE;
    uint64_t ticks = 0;
    int rc = 0, failed = 0;

    while (rc == 0 && may_go_on(m, vm) && (!qi_given(context, "ticks") || ticks < vm->ticks)) {
        rc = qi_signal_check();
        int comes = rc == 0 ? vm_source_next(context, source) : rc;
        rc = comes < 0 ? comes : 0;
        int runs = comes > 0 && !m->halted;
        if (runs)
            rc = vm_meter_tick(context, meter, session, &stop);
        if (comes <= 0 || rc < 0 || watch->reached)
            break;
        ticks++;
        rc = runs ? vm_say_emitted(context, m) : 0;
    }
    if (rc == QALLOW_E_FUNCTION || (rc < 0 && qv_is_failure(stop))) {
        qi_report(context, rc);
        failed = 1;
        rc = 0;
    }
    int status = rc < 0 ? qi_report(context, rc) : failed;
    rc = say_end(context, session, ticks);
    return status ? status : rc;
}

static int parse_inputs(struct qi_context *context, const struct vm *vm, struct qv_input *inputs,
                        char **texts)
{
    for (size_t i = 0; i < vm->inputs.count; i++) {
        const char *equals = strchr(vm->inputs.items[i], '=');
        if (!equals || equals == vm->inputs.items[i] || !equals[1])
            return qi_usage(context, "--input NAME=FILE, not %s", vm->inputs.items[i]);
        texts[i] = strndup(vm->inputs.items[i], (size_t)(equals - vm->inputs.items[i]));
        if (!texts[i])
            return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the inputs");
        for (size_t k = 0; k < i; k++)
            if (strcmp(texts[k], texts[i]) == 0)
                return qi_usage(context, "--input %s once", texts[i]);
        inputs[i].name = texts[i];
        inputs[i].path = equals + 1;
    }
    return 0;
}

/* With a patch, if there is one, and what it did. */
static int open_resumed(struct qi_context *context, const struct vm *vm,
                        struct qv_session_options *options, struct qv_session **session)
{
    struct qv_patched patched = {.world = 0};
    char *text = NULL;
    uint64_t length = 0;
    int rc = vm->patch ? read_program(vm->patch, &text, &length) : 0;

    if (rc < 0)
        return rc;
    options->patch = (struct qv_patch){text, vm->patch, length, &patched};
    rc = qv_session_resume(vm->resume, vm->epoch, options, session);
    qr_free(text);
    if (rc == QALLOW_E_ARGUMENT && options->error->message[0])
        return report_source(context, options->error);
    if (rc < 0 || !patched.world || options->has_no_log)
        return rc;
    rc = vm_say_patched(context, qv_session_machine(*session)->program, &patched);
    if (rc != 0)
        qv_session_close(*session);
    return rc;
}

static int open_session(struct qi_context *context, const struct vm *vm,
                        struct qv_session_options *options, struct qv_session **session)
{
    char *text = NULL;
    uint64_t length = 0;

    if (vm->resume)
        return open_resumed(context, vm, options, session);
    int rc = read_program(vm->program, &text, &length);
    if (rc < 0)
        return rc;
    rc = qv_session_create(text, length, vm->program, options, session);
    qr_free(text);
    if (rc == QALLOW_E_ARGUMENT && options->error->message[0])
        return report_source(context, options->error);
    return rc;
}

/* Whether everything is there that the arguments name, before a log is made or gets an epoch: the
 * machine is made once without one. */
static int rehearse(struct qi_context *context, const struct vm *vm,
                    const struct qv_session_options *options)
{
    struct qv_session_options without = *options;
    struct qv_session *session = NULL;

    without.log = NULL;
    without.has_no_log = 1;
    int rc = open_session(context, vm, &without, &session);
    if (rc != 0)
        return rc;
    rc = vm_watch_check(context, vm, qv_session_machine(session));
    if (rc == 0) {
        struct vm_source source;
        rc = vm_source_begin(vm, session, options->inputs, &source);
        vm_source_end(&source);
    }
    int closed = qv_session_close(session);
    return rc ? rc : closed;
}

/* With a rehearsal, if something can be wrong that shows too late otherwise. */
static int open_checked(struct qi_context *context, const struct vm *vm,
                        struct qv_session_options *options, struct qv_session **session)
{
    const int has_more = options->input_count || vm->patch || vm->trace || vm->trace_events ||
                         vm->telemetry || vm->stop_at || vm->follow;
    int rc = has_more && !options->has_no_log ? rehearse(context, vm, options) : 0;

    if (rc == 0)
        rc = open_session(context, vm, options, session);
    if (rc == QALLOW_E_FUNCTION) { /* of a derived page, before the first tick */
        qi_report(context, rc);
        return QI_DIFFERS;
    }
    return rc;
}

static int run_with(struct qi_context *context, const struct vm *vm, const struct qv_input *inputs)
{
    struct qallow_options store = QALLOW_OPTIONS_INIT;
    struct qv_source_error error = {.line = 0};
    struct qv_session_options options = {.log = vm->log,
                                         .inputs = inputs,
                                         .input_count = vm->inputs.count,
                                         .seed = vm->seed,
                                         .fuel = vm->fuel,
                                         .max_memory = vm->max_memory,
                                         .threads = vm->threads,
                                         .has_no_log = !vm->log && !vm->resume,
                                         .inputs_come = vm->follow != NULL,
                                         .follows = vm->follow && strcmp(vm->follow, "-") != 0,
                                         .interrupted = vm_interrupted,
                                         .error = &error};
    struct qv_session *session = NULL;

    store.logical_clock = vm->clock == 1;
    store.sync = (uint32_t)vm->sync;
    store.uuid = qi_given(context, "uuid") ? vm->uuid.bytes : NULL;
    options.store = store;
    qi_signals_catch();
    int rc = open_checked(context, vm, &options, &session);
    if (rc != 0)
        return rc;
    if (vm->step) {
        rc = vm_step(context, vm, session);
        int closed = qv_session_close(session);
        return rc ? rc : closed;
    }
    struct vm_watch watch;
    struct vm_meter meter = {.csv = NULL};
    struct vm_source source;
    rc = vm_watch_begin(context, vm, session, &watch);
    if (rc == 0)
        rc = vm_meter_begin(vm->telemetry, &meter);
    int followed = vm_source_begin(vm, session, inputs, &source);
    rc = rc ? rc : followed;
    if (rc == 0)
        rc = run_ticks(context, vm, session, &watch, &meter, &source);
    vm_source_end(&source);
    vm_meter_end(context, &meter);
    if (rc == 0 && watch.reached)
        rc = vm_print_state(context, watch.machine, 0);
    int ended = vm_watch_end(context, &watch);
    rc = rc ? rc : ended;
    int closed = qv_session_close(session);
    return rc ? rc : closed;
}

int vm_run(struct qi_context *context, const struct vm *vm)
{
    struct qv_input *inputs = calloc(vm->inputs.count + 1, sizeof *inputs);
    char **texts = calloc(vm->inputs.count + 1, sizeof *texts);
    int rc = inputs && texts ? parse_inputs(context, vm, inputs, texts)
                             : qr_fail(QALLOW_E_NO_MEMORY, "no memory for the inputs");

    if (rc == 0)
        rc = run_with(context, vm, inputs);
    for (size_t i = 0; texts && i < vm->inputs.count; i++)
        free(texts[i]);
    free(texts);
    free(inputs);
    return rc;
}

/* --- checking --- */

static void progress(void *context, uint64_t done, uint64_t total)
{
    qi_progress_bytes(context, done, total);
}

int vm_check(struct qi_context *context, const struct vm *vm)
{
    struct qi_progress line;
    uint64_t epochs = 0;
    struct qv_check_options options = {.threads = vm->threads,
                                       .max_memory = vm->max_memory,
                                       .progress = progress,
                                       .interrupted = vm_interrupted,
                                       .context = &line};

    qi_progress_begin(&line, context, "running again, epochs");
    qi_signals_catch();
    int rc = qv_session_check(vm->check, &options, &epochs);
    qi_progress_end(&line);
    if (rc < 0)
        return rc;
    if (context->json) {
        cJSON *json = qi_json_begin(context);
        qi_json_u64(json, "epochs", epochs);
        cJSON_AddBoolToObject(json, "same", 1);
        return qi_json_end(json);
    }
    printf("%" PRIu64 " epochs: the same again\n", epochs);
    return 0;
}
