/* SPDX-License-Identifier: Apache-2.0 */
/* Opening logs and choosing epochs, the same way in every command. */
#include "interface/epochs.h"
#include "interface/values.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void notice(void *context, const char *line) { qi_note(context, "%s", line); }

struct qr_store_options qi_store_options(const struct qi_context *context, uint64_t max_memory)
{
    return (struct qr_store_options){.max_memory = max_memory,
                                     .compress_level = QI_COMPRESS_DEFAULT,
                                     .notice = notice,
                                     .notice_context = (void *)(uintptr_t)context};
}

int qi_open_store(const char *path, const struct qr_store_options *options,
                  struct qr_store **store)
{
    struct stat st;

    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return qr_fail(QALLOW_E_NOT_A_LOG, "%s is a directory, not a log", qr_quotez(path));
    return qr_store_open(path, options, store);
}

int qi_open_log(const struct qi_context *context, const char *path, int threads,
                uint64_t max_memory, int salvage, struct qr_store **store)
{
    struct qr_store_options options = qi_store_options(context, max_memory);

    options.threads = threads ? threads : qi_default_threads();
    options.salvage = salvage;
    return qi_open_store(path, &options, store);
}

int qi_epoch_chosen(const struct qi_context *context)
{
    return qi_given(context, "epoch") || qi_given(context, "time") || qi_given(context, "label");
}

int qi_choose_epoch(const struct qi_context *context, struct qr_store *store,
                    const struct qi_epoch_choice *choice, uint64_t *epoch)
{
    struct qr_store_info info;

    qr_store_info(store, &info);
    *epoch = info.last_epoch;
    if (qi_given(context, "epoch"))
        *epoch = choice->epoch;
    else if (qi_given(context, "time"))
        return qr_store_epoch_at_time(store, choice->time_ns, epoch);
    else if (qi_given(context, "label"))
        return qr_store_epoch_of_label(store, choice->label, epoch);
    return 0;
}

int qi_epoch_of_word(struct qr_store *store, const char *word, size_t length, uint64_t *epoch)
{
    char text[256];
    struct qr_store_info info;
    struct qr_epoch found;

    if (length >= sizeof text)
        return qr_fail(QALLOW_E_EPOCH_NOT_FOUND, "%s: no epoch is called that",
                       qr_quote(word, length));
    memcpy(text, word, length);
    text[length] = '\0';
    qr_store_info(store, &info);
    if (length == 0) {
        *epoch = info.last_epoch;
        return 0;
    }
    if (text[strspn(text, "0123456789")] != '\0')
        return qr_store_epoch_of_label(store, text, epoch);
    const char *expected = qi_parse_number(text, epoch);
    if (expected)
        return qr_fail(QALLOW_E_ARGUMENT,
                       "%s: expected %s from 0 to %llu, or a label; for example 3..7", text,
                       expected, (unsigned long long)UINT64_MAX);
    return *epoch == 0 ? 0 : qr_store_epoch(store, *epoch, &found);
}

void qi_print_name(FILE *out, const char *name, size_t length)
{
    enum { PART = 64 }; /* short enough never to be cut by qr_quote */

    while (length > 0) {
        size_t n = length < PART ? length : PART;
        /* Not through the middle of a UTF-8 sequence. */
        for (int i = 0; i < 3 && n < length && ((unsigned char)name[n] & 0xc0) == 0x80; i++)
            n--;
        fputs(qr_quote(name, n), out);
        name += n;
        length -= n;
    }
}

int qi_default_threads(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > 64 ? 64 : (int)n;
}
