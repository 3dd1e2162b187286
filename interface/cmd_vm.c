/* SPDX-License-Identifier: Apache-2.0 */
/* `qallow vm`: the deterministic machine. Its options, and which action they mean. */
#include "interface/cmd_vm.h"

#include <stddef.h>
#include <string.h>

#include "interface/commands.h"
#include "interface/epochs.h"

#define FIELD(member) QI_FIELD(struct vm, member)

static const char *const clocks[] = {"real", "logical", NULL};
static const char *const syncs[] = {"commit", "interval", "none", NULL}; /* as enum qallow_sync */

static const struct qi_option options[] = {
    {.name = "PROGRAM",
     .positional = true,
     .kind = QI_TEXT,
     FIELD(program),
     .argument = "FILE",
     .help = "the program, a .qvm text"},
    {.name = "ticks",
     .letter = 'n',
     .kind = QI_NUMBER,
     FIELD(ticks),
     .argument = "N",
     .help = "stop after this many ticks (default: when the program halts); 0: run nothing"},
    {.name = "log",
     .kind = QI_TEXT,
     FIELD(log),
     .argument = "LOG",
     .help = "record every tick as an epoch of this new log"},
    {.name = "input",
     .letter = 'i',
     .kind = QI_LIST,
     FIELD(inputs),
     .argument = "NAME=FILE",
     .help = "what an input of the program holds; may be given several times"},
    {.name = "follow",
     .letter = 'F',
     .kind = QI_TEXT,
     FIELD(follow),
     .argument = "LOG",
     .help =
         "inputs are pages of this log, by their names or as --input NAME=PAGE says; each epoch "
         "that changes one is followed by a tick. -: frames from standard input, see docs/vm.md"},
    {.name = "once",
     .kind = QI_FLAG,
     FIELD(once),
     .help = "with --follow LOG: end where the log ends, do not wait for more"},
    {.name = "resume",
     .letter = 'r',
     .kind = QI_TEXT,
     FIELD(resume),
     .argument = "LOG",
     .group = "action",
     .help = "go on with the machine of this log"},
    {.name = "epoch",
     .letter = 'e',
     .kind = QI_NUMBER,
     FIELD(epoch),
     .argument = "N",
     .minimum = 1,
     .help = "with --resume: from this epoch; an older one than the newest needs "
             "--log for the branch"},
    {.name = "patch",
     .kind = QI_TEXT,
     FIELD(patch),
     .argument = "FILE",
     .help = "with --resume: go on with this program; functions that differ are defined anew"},
    {.name = "check",
     .kind = QI_TEXT,
     FIELD(check),
     .argument = "LOG",
     .group = "action",
     .help = "run everything in this log again and compare every epoch's digest"},
    {.name = "explain",
     .kind = QI_TEXT,
     FIELD(explain),
     .argument = "PAGE",
     .help = "with --resume: run nothing, say why this page was computed last, or who wrote it, as "
             "of --epoch"},
    {.name = "verify",
     .kind = QI_FLAG,
     FIELD(verify),
     .group = "action",
     .help = "assemble and verify the program, run nothing"},
    {.name = "disassemble",
     .letter = 'd',
     .kind = QI_FLAG,
     FIELD(disassemble),
     .group = "action",
     .help = "print the program as the machine has it"},
    {.name = "reference",
     .kind = QI_FLAG,
     FIELD(reference),
     .group = "action",
     .help = "print the table of instructions, in Markdown"},
    {.name = "fuel",
     .kind = QI_SIZE,
     FIELD(fuel),
     .argument = "N",
     .minimum = 1,
     .maximum = QV_MAX_FUEL,
     .help = "what a tick may use, and each call of a derived page's function (default: what the "
             "program says)"},
    {.name = "seed",
     .kind = QI_NUMBER,
     FIELD(seed),
     .argument = "N",
     .help = "of the random numbers (default: 0)"},
    {.name = "threads",
     .letter = 't',
     .kind = QI_NUMBER,
     FIELD(threads),
     .argument = "N",
     .minimum = 1,
     .maximum = 256,
     .help = "for vector instructions on much data (default: as many as CPUs)"},
    {.name = "max-memory",
     .kind = QI_SIZE,
     FIELD(max_memory),
     .argument = "SIZE",
     .minimum = 1,
     .help = "what a machine may take (default: 4G with --resume, --check and --explain; for a "
             "PROGRAM what its .memory says)"},
    {.name = "trace",
     .kind = QI_TEXT,
     FIELD(trace),
     .argument = "FILE",
     .help = "write what happens to this file: CSV, or JSON lines if it ends so"},
    {.name = "trace-events",
     .kind = QI_TEXT,
     FIELD(trace_events),
     .argument = "LIST",
     .help = "with --trace: instructions, calls, nodes, ticks (default: all of them)"},
    {.name = "break",
     .kind = QI_TEXT,
     FIELD(stop_at),
     .argument = "FUNCTION[.LABEL]",
     .help = "stop in front of this place and show the machine; the tick is not committed. Not in "
             "functions of derived pages: --trace shows those"},
    {.name = "counts",
     .kind = QI_FLAG,
     FIELD(counts),
     .help = "say at the end how often each function was called, and to compute a page"},
    {.name = "step",
     .letter = 's',
     .kind = QI_FLAG,
     FIELD(step),
     .help = "run under commands from standard input: step, back, registers, disassembly, pages, "
             "epochs; h lists them"},
    {.name = "back",
     .kind = QI_FLAG,
     FIELD(back),
     .help = "the same, beginning one instruction back: after --resume the last one of that "
             "epoch's tick"},
    {.name = "telemetry",
     .kind = QI_TEXT,
     FIELD(telemetry),
     .argument = "FILE",
     .help = "append metrics to this CSV file, every 10 s and at the end"},
    {.name = "sync",
     .kind = QI_CHOICE,
     FIELD(sync),
     .argument = "WHEN",
     .choices = syncs,
     .fallback = "interval",
     .help = "what a crash can lose: nothing, a second of ticks, more"},
    {.name = "uuid",
     .kind = QI_CUSTOM,
     FIELD(uuid),
     .argument = "UUID",
     .parse = qi_parse_uuid,
     .help = "identity of a new log (default: random)"},
    {.name = "clock",
     .kind = QI_CHOICE,
     FIELD(clock),
     .argument = "CLOCK",
     .choices = clocks,
     .fallback = "real",
     .help = "with --uuid, logical makes the same log, byte for byte, every time"},
    {.name = NULL},
};

static int run(struct qi_context *context, const void *values)
{
    struct vm vm = *(const struct vm *)values;
    int runs = !vm.check && !vm.verify && !vm.disassemble && !vm.reference;

    if (vm.threads == 0)
        vm.threads = qi_default_threads();
    if (!vm.max_memory && (vm.resume || vm.check))
        vm.max_memory = QV_LOG_MEMORY;
    if (vm.check && vm.fuel)
        return qi_usage(context, "--check without --fuel: the log says what was used");
    if (!runs && (vm.log || vm.ticks || vm.inputs.count || vm.fuel || qi_given(context, "seed")))
        return qi_usage(context, "--check, --verify, --disassemble or --reference, or a run");
    vm.step |= vm.back;
    if (vm.step && (vm.trace || vm.stop_at || vm.counts || context->json))
        return qi_usage(context, "--step alone");
    if (!runs && (vm.step || vm.trace || vm.stop_at || vm.counts || vm.telemetry))
        return qi_usage(context, "--trace, --break, --counts and --telemetry with a run");
    if (qi_given(context, "epoch") && !vm.resume)
        return qi_usage(context, "--resume LOG beside --epoch");
    if (vm.trace_events && !vm.trace)
        return qi_usage(context, "--trace FILE beside --trace-events");
    if (vm.patch && !vm.resume)
        return qi_usage(context, "--resume LOG beside --patch");
    if (vm.explain &&
        (!vm.resume || vm.log || vm.inputs.count || vm.patch || vm.fuel || vm.step || vm.trace ||
         vm.stop_at || vm.counts || vm.telemetry || qi_given(context, "ticks")))
        return qi_usage(context, "--explain PAGE --resume LOG, and nothing but --epoch");
    if (vm.follow && (!runs || vm.step || vm.explain || vm.patch))
        return qi_usage(context, "--follow with a run");
    if (vm.once && (!vm.follow || strcmp(vm.follow, "-") == 0))
        return qi_usage(context, "--follow LOG beside --once");
    if (vm.follow && strcmp(vm.follow, "-") == 0 && vm.inputs.count)
        return qi_usage(context, "--follow - without --input: frames say which input they are for");
    if (vm.resume && qi_given(context, "seed"))
        return qi_usage(context, "--seed for a new run: a log has its random numbers");
    if (qi_given(context, "uuid") && !vm.log)
        return qi_usage(context, "--log LOG beside --uuid");
    if ((vm.resume || vm.check || vm.reference) ? vm.program != NULL : vm.program == NULL)
        return qi_usage(context, vm.program ? "no PROGRAM: the log has it"
                                            : "a PROGRAM, or --resume LOG or --check LOG");
    if (vm.check)
        return vm_check(context, &vm);
    if (vm.explain)
        return vm_explain(context, &vm);
    if (vm.verify || vm.disassemble)
        return vm_inspect(context, &vm);
    return vm.reference ? vm_reference() : vm_run(context, &vm);
}

const struct qi_command qi_command_vm = {
    .name = "vm",
    .summary = "run a program whose whole state is in a log",
    .description =
        "Assembles a program, verifies it and runs it tick by tick. With --log every tick is an "
        "epoch: pages, registers, calls and program counter. So a run can be stopped anywhere and "
        "resumed, also from an old epoch, and every epoch can be read with `qallow replay`. The "
        "same program and inputs give the same digests on every machine and with any number of "
        "threads.\n\n"
        "What the program emits goes to standard output. A tick that fails (a trap, or no fuel "
        "left) leaves the log as it was before.\n\n"
        "docs/vm.md has the language and the instructions.",
    .options = options,
    .values_size = sizeof(struct vm),
    .run = run,
    .examples =
        (const struct qi_example[]){
            {"qallow vm examples/sieve.qvm", "run a program"},
            {"qallow vm examples/life.qvm --ticks 100 --log run.tlog", "a hundred ticks, recorded"},
            {"qallow vm --resume run.tlog --ticks 100", "a hundred more"},
            {"qallow vm --resume run.tlog --epoch 50 --log branch.tlog --ticks 10",
             "from epoch 50, into a log of its own"},
            {"qallow vm --resume run.tlog --patch new.qvm", "go on with another program"},
            {"qallow vm --check run.tlog", "does it come out the same again?"},
            {"qallow vm mean.qvm --follow work.tlog --input a=sensors/a --log run.tlog",
             "a tick for each change that a recorder finds"},
            {"qallow vm --resume run.tlog --explain total", "why was this page computed?"},
            {"qallow vm examples/crc32.qvm --input data=README.md", "a program with an input"},
            {0}},
    .exits = (const struct qi_exit[]){{0, NULL},
                                      {1, "the program failed (a trap, or out of fuel); --check: "
                                          "an epoch differs"},
                                      {64, NULL},
                                      {65, "the program is wrong, or the log is damaged"},
                                      {66, NULL},
                                      {71, NULL},
                                      {73, NULL},
                                      {74, NULL},
                                      {75, NULL},
                                      {77, NULL},
                                      {0}},
};
