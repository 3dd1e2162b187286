/* SPDX-License-Identifier: Apache-2.0 */
/* `qallow vm --telemetry`: ticks are timed, and the table of metrics is written now and then. */
#include <string.h>

#include "interface/cmd_vm.h"
#include "runtime/error.h"
#include "telemetry/telemetry.h"

static const int64_t interval_ns = 10 * INT64_C(1000000000);

int vm_meter_begin(const char *path, struct vm_meter *meter)
{
    *meter = (struct vm_meter){.written_at = qi_monotonic_ns()};
    int err = path ? qt_csv_open(path, &meter->csv) : 0;
    return err < 0 ? qr_fail_errno(-err, "%s", qr_quotez(path)) : 0;
}

static void write_metrics(struct qi_context *context, struct vm_meter *meter)
{
    int err = qt_csv_write(meter->csv);

    if (err < 0) /* what was done is done */
        qi_note(context, "no telemetry: %s", strerror(-err));
}

int vm_meter_tick(struct qi_context *context, struct vm_meter *meter, struct qv_session *session,
                  enum qv_stop *stop)
{
    int64_t began = meter->csv ? qi_monotonic_ns() : 0;
    int rc = qv_session_tick(session, stop, NULL);

    if (!meter->csv)
        return rc;
    int64_t now = qi_monotonic_ns();
    if (rc == 0 && *stop < QV_HOOKED)
        qt_observe_ns(QT_VM_TICK_SECONDS, (uint64_t)(now - began));
    if (now - meter->written_at >= interval_ns) {
        meter->written_at = now;
        write_metrics(context, meter);
    }
    return rc;
}

void vm_meter_end(struct qi_context *context, struct vm_meter *meter)
{
    if (meter->csv)
        write_metrics(context, meter);
    qt_csv_close(meter->csv);
}
