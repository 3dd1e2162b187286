/* SPDX-License-Identifier: Apache-2.0 */
/* On what the figures were taken: figures of different machines are not compared. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "backend/kernels.h"
#include "bench/bench.h"

static void cpu_model(char *text, size_t size)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");
    snprintf(text, size, "unknown");
    while (file && fgets(line, sizeof line, file)) {
        char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !value)
            continue;
        value += 1 + strspn(value + 1, " ");
        value[strcspn(value, "\n")] = '\0';
        snprintf(text, size, "%s", value);
        break;
    }
    if (file)
        fclose(file);
}

void qm_machine_look(struct qm_machine *machine)
{
    struct utsname name;
    double load[1] = {0};
    *machine = (struct qm_machine){.kernels = qb_kernels()->name, .cpus = qm_cpus()};
    cpu_model(machine->cpu, sizeof machine->cpu);
    if (uname(&name) == 0)
        snprintf(machine->kernel, sizeof machine->kernel, "%.30s %.60s", name.sysname,
                 name.release);
#ifdef __clang__
    snprintf(machine->compiler, sizeof machine->compiler, "clang %s", __clang_version__);
#else
    snprintf(machine->compiler, sizeof machine->compiler, "gcc %s", __VERSION__);
#endif
    double gib = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / (1 << 30);
    snprintf(machine->memory, sizeof machine->memory, "%.0f GiB", gib);
    snprintf(machine->version, sizeof machine->version, "%s", QALLOW_VERSION);
    if (getloadavg(load, 1) == 1)
        machine->load = load[0];
}
