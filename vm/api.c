/* SPDX-License-Identifier: Apache-2.0 */
/* qallow/vm.h: a session for programs outside, and the events that it is watched by. */
#include <string.h>

#include "runtime/api.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "vm/session.h"
#include "vm/world.h"

struct qallow_vm {
    struct qv_session *session;
    struct qallow_vm_watch watch;
    int is_in_tick, has_failed;
};

/* --- making --- */

static int take_inputs(const struct qallow_vm_options *options, struct qv_input **inputs)
{
    *inputs = qr_malloc((options->input_count + 1) * sizeof **inputs);
    if (!*inputs)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for %llu inputs",
                       (unsigned long long)options->input_count);
    for (uint64_t i = 0; i < options->input_count; i++) {
        QR_CHECK_ARGUMENT(options->inputs[i].name != NULL && options->inputs[i].path != NULL);
        (*inputs)[i] = (struct qv_input){options->inputs[i].name, options->inputs[i].path};
    }
    return 0;
}

/* The caller's options as those of a session; options->inputs is to be freed also on failure. */
static int take_options(const struct qallow_vm_options *theirs, struct qv_session_options *options)
{
    struct qallow_vm_options ours = {.size = 0};
    struct qv_input *inputs = NULL;
    int rc = theirs ? qr_api_options(theirs, &ours, sizeof ours, sizeof ours) : 0;

    if (rc < 0)
        return rc;
    QR_CHECK_ARGUMENT(ours.inputs != NULL || ours.input_count == 0);
    QR_CHECK_ARGUMENT(ours.input_count <= QV_MAX_PAGES && ours.threads <= 256);
    *options = (struct qv_session_options){.log = ours.log,
                                           .store = QALLOW_OPTIONS_INIT,
                                           .input_count = ours.input_count,
                                           .seed = ours.seed,
                                           .fuel = ours.fuel,
                                           .max_memory = ours.max_memory,
                                           .threads = ours.threads ? (int)ours.threads : 1};
    if (ours.store)
        rc = qr_api_options(ours.store, &options->store, sizeof options->store, 4);
    options->store.size = sizeof options->store;
    if (rc == 0)
        rc = take_inputs(&ours, &inputs);
    options->inputs = inputs;
    return rc;
}

static int wrap(int rc, struct qv_session *session, struct qallow_vm **vm)
{
    if (rc < 0)
        return rc;
    *vm = qr_calloc(1, sizeof **vm);
    if (!*vm) {
        qv_session_close(session);
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a machine");
    }
    (*vm)->session = session;
    return 0;
}

int qallow_vm_create(const char *text, size_t length, const char *name,
                     const struct qallow_vm_options *options, struct qallow_vm **vm)
{
    struct qv_session_options ours = {.log = NULL};
    struct qv_session *session = NULL;

    QR_CHECK_ARGUMENT(text != NULL && name != NULL && vm != NULL);
    *vm = NULL;
    int rc = take_options(options, &ours);
    ours.has_no_log = !ours.log;
    if (rc == 0)
        rc = qv_session_create(text, length, name, &ours, &session);
    qr_free((void *)ours.inputs);
    return wrap(rc, session, vm);
}

int qallow_vm_resume(const char *log, uint64_t epoch, const struct qallow_vm_options *options,
                     struct qallow_vm **vm)
{
    struct qv_session_options ours = {.log = NULL};
    struct qv_session *session = NULL;

    QR_CHECK_ARGUMENT(log != NULL && vm != NULL);
    *vm = NULL;
    int rc = take_options(options, &ours);
    if (rc == 0)
        rc = qv_session_resume(log, epoch, &ours, &session);
    qr_free((void *)ours.inputs);
    return wrap(rc, session, vm);
}

int qallow_vm_close(struct qallow_vm *vm)
{
    if (!vm)
        return 0;
    int rc = qv_session_close(vm->session);
    qr_free(vm);
    return rc;
}

/* --- running --- */

int qallow_vm_tick(struct qallow_vm *vm, struct qallow_vm_turn *turn)
{
    enum qv_stop stop = QV_TICK_DONE;

    QR_CHECK_ARGUMENT(vm != NULL);
    if (vm->has_failed)
        return qr_fail(QALLOW_E_STATE, "a tick has failed: the machine can only be closed");
    int rc = vm->is_in_tick ? qv_session_continue(vm->session, &stop, NULL)
                            : qv_session_tick(vm->session, &stop, NULL);
    const struct qv_machine *m = qv_session_machine(vm->session);
    if (rc < 0) {
        vm->has_failed = !m->halted;
        return rc;
    }
    vm->is_in_tick = stop == QV_HOOKED;
    struct qallow_vm_turn ours = {.size = sizeof ours,
                                  .status = stop == QV_HOOKED   ? QALLOW_VM_STOPPED
                                            : stop == QV_HALTED ? QALLOW_VM_HALTED
                                                                : QALLOW_VM_DONE,
                                  .tick = m->tick - !vm->is_in_tick,
                                  .epoch = qv_session_epoch(vm->session),
                                  .fuel = m->fuel_used};
    return turn ? qr_api_give(turn, &ours, sizeof ours) : 0;
}

int qallow_vm_patch(struct qallow_vm *vm, const char *text, size_t length, const char *name,
                    struct qallow_vm_patch *patch)
{
    struct qv_source_error error;
    struct qv_patched done;

    QR_CHECK_ARGUMENT(vm != NULL && text != NULL && name != NULL);
    if (vm->is_in_tick || vm->has_failed)
        return qr_fail(QALLOW_E_STATE, "a program is patched between two ticks");
    int rc = qv_session_patch(vm->session, text, length, name, &error, &done);
    struct qallow_vm_patch ours = {.size = sizeof ours,
                                   .world = done.world,
                                   .defined = done.defined,
                                   .stale = done.stale,
                                   .removed = done.gone,
                                   .kept = done.kept,
                                   .computed = done.computed,
                                   .epoch = done.epoch};
    return rc < 0 || !patch ? rc : qr_api_give(patch, &ours, sizeof ours);
}

/* --- looking --- */

int qallow_vm_page(struct qallow_vm *vm, const char *name, const void **bytes, uint64_t *size)
{
    QR_CHECK_ARGUMENT(vm != NULL && name != NULL && bytes != NULL && size != NULL);
    const struct qv_machine *m = qv_session_machine(vm->session);
    int page = qv_find_page(m->program, name);
    if (page < 0)
        return qr_fail(QALLOW_E_PAGE_NOT_FOUND, "the program has no page %s", qr_quotez(name));
    *bytes = m->pages[page].bytes;
    *size = m->pages[page].size;
    return 0;
}

struct qallow_store *qallow_vm_store(struct qallow_vm *vm)
{
    return vm ? qv_session_store(vm->session) : NULL;
}

int qallow_vm_emitted(struct qallow_vm *vm, uint64_t index, struct qallow_vm_value *value)
{
    QR_CHECK_ARGUMENT(vm != NULL && value != NULL);
    const struct qv_machine *m = qv_session_machine(vm->session);
    if (index >= m->emit_count)
        return qr_fail(QALLOW_E_LIMIT, "the tick emitted %zu values", m->emit_count);
    struct qallow_vm_value ours = {.size = sizeof ours,
                                   .kind = m->emits[index].kind,
                                   .name = m->program->names[m->emits[index].name].text,
                                   .bits = m->emits[index].value};
    return qr_api_give(value, &ours, sizeof ours);
}

int qallow_vm_function(struct qallow_vm *vm, uint64_t index, struct qallow_vm_function *function)
{
    QR_CHECK_ARGUMENT(vm != NULL && function != NULL);
    const struct qv_machine *m = qv_session_machine(vm->session);
    const struct qv_program *program = m->program;
    size_t count = program->function_count;
    if (index >= count)
        return qr_fail(QALLOW_E_LIMIT, "the program has %zu functions", count);
    uint32_t *ages = qr_malloc(count * sizeof *ages);
    int rc = ages ? qv_reached_ages(program, ages)
                  : qr_fail(QALLOW_E_NO_MEMORY, "no memory for the functions' ages");
    struct qallow_vm_function ours = {.size = sizeof ours,
                                      .age = program->functions[index].age,
                                      .reached = rc == 0 ? ages[index] : 0,
                                      .is_old = index >= qv_current_count(program),
                                      .name = program->functions[index].name};
    if (m->watch.counts) {
        ours.calls = m->watch.counts[index].calls;
        ours.computed = m->watch.counts[index].called;
    }
    qr_free(ages);
    return rc < 0 ? rc : qr_api_give(function, &ours, sizeof ours);
}

/* --- watching --- */

void qv_event_of(const struct qv_session *session, const struct qv_machine *m, uint32_t what,
                 uint32_t which, struct qallow_vm_event *event)
{
    const struct qv_program *p = m->program;
    uint32_t function, word;

    qv_locate(m, m->pc, &function, &word);
    const struct qv_function *f = &p->functions[function];
    *event = (struct qallow_vm_event){.size = sizeof *event,
                                      .what = what,
                                      .tick = m->tick - (what == QALLOW_VM_ON_TICK_DONE),
                                      .epoch = qv_session_epoch(session),
                                      .function = f->name,
                                      .word = word,
                                      .line = f->lines ? f->lines[word] : 0,
                                      .depth = m->depth,
                                      .fuel = m->fuel_limit - m->fuel_reserve - (uint64_t)m->fuel,
                                      .internal = m};
    if (what == QALLOW_VM_ON_CALL || what == QALLOW_VM_ON_RETURN)
        event->function = p->functions[which].name;
    if (what == QALLOW_VM_ON_NODE || what == QALLOW_VM_ON_NODE_DONE) {
        event->function = p->functions[p->pages[which].function].name;
        event->page = p->pages[which].name;
    }
}

static int tell(void *context, struct qv_machine *m, uint32_t what, uint32_t which)
{
    struct qallow_vm *vm = context;
    struct qallow_vm_event event;

    qv_event_of(vm->session, m, what, which, &event);
    int rc = vm->watch.tell(vm->watch.context, &event);
    if (rc != 0 && what == QALLOW_VM_ON_INSTRUCTION)
        m->skip_watch = 1; /* it is not told of again when the tick goes on */
    return rc;
}

int qallow_vm_watch(struct qallow_vm *vm, const struct qallow_vm_watch *watch)
{
    struct qallow_vm_watch ours = {.size = 0};

    QR_CHECK_ARGUMENT(vm != NULL);
    struct qv_machine *m = qv_session_machine(vm->session);
    int rc = watch ? qr_api_options(watch, &ours, sizeof ours, sizeof ours) : 0;
    if (rc < 0)
        return rc;
    QR_CHECK_ARGUMENT(ours.what < 2 * QALLOW_VM_ON_TICK_DONE && ours.counts <= 1);
    QR_CHECK_ARGUMENT(ours.tell != NULL || ours.what == 0);
    rc = qv_machine_count(m, (int)ours.counts);
    if (rc < 0)
        return rc;
    vm->watch = ours;
    m->watch.what = ours.what;
    m->watch.tell = tell;
    m->watch.context = vm;
    return 0;
}

int qallow_vm_event_text(const struct qallow_vm_event *event, char *text, size_t size)
{
    QR_CHECK_ARGUMENT(event != NULL && text != NULL && size > 0);
    const struct qv_machine *m = event->internal;
    uint32_t function, word;

    *text = '\0';
    if (event->what != QALLOW_VM_ON_INSTRUCTION)
        return 0;
    qv_locate(m, m->pc, &function, &word);
    qv_disassemble_one(m->program, &m->program->functions[function], word, text, size);
    return 0;
}
