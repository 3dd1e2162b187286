/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shell completion from the tables, for bash, zsh and fish. Each script first finds out which
 * command the words before the cursor have reached, then offers its actions, its options, or what
 * the option or argument at the cursor takes.
 */
#include <string.h>

#include "interface/describe.h"
#include "runtime/error.h"

/* Calls visit for a command and everything below it, with full paths. */
static void each_command(FILE *out, const char *path, const struct qi_command *command,
                         void (*visit)(FILE *out, const char *path,
                                       const struct qi_command *command))
{
    char action_path[96];

    visit(out, path, command);
    for (const struct qi_command *const *a = command->actions; a && *a; a++)
        if (!(*a)->hidden) {
            int n = snprintf(action_path, sizeof action_path, "%s %s", path, (*a)->name);
            qr_assert(n > 0 && (size_t)n < sizeof action_path);
            each_command(out, action_path, *a, visit);
        }
}

static void print_choices(FILE *out, const struct qi_option *option)
{
    for (size_t i = 0; option->choices[i]; i++)
        fprintf(out, "%s%s", i ? " " : "", option->choices[i]);
}

/* --- bash --- */

/* A case of the walk down the words. */
static void bash_path(FILE *out, const char *path, const struct qi_command *command)
{
    (void)command;
    if (strchr(path, ' '))
        fprintf(out, "        '%s') path+=\" ${COMP_WORDS[i]}\" ;;\n", path);
}

static void bash_values(FILE *out, const char *path, const struct qi_command *command)
{
    static const char *const kinds[] = {"nothing", "files", "directories", "words"};
    const struct qi_option *option;

    for (size_t i = 0; (option = qi_next_visible(command, &i));) {
        if (option->positional || option->kind == QI_FLAG)
            continue;
        fprintf(out, "    '%s --%s'", path, option->name);
        if (option->letter)
            fprintf(out, " | '%s -%c'", path, option->letter);
        enum qi_source source = qi_source_of(option);
        fprintf(out, ") kind=%s", kinds[source]);
        if (source == QI_FROM_CHOICES) {
            fputs(" words='", out);
            print_choices(out, option);
            fputc('\'', out);
        }
        fputs(" ;;\n", out);
    }
}

static void bash_words(FILE *out, const char *path, const struct qi_command *command)
{
    static const char *const kinds[] = {"nothing", "files", "directories", "words"};
    const struct qi_option *option;
    enum qi_source source = command->actions ? QI_FROM_CHOICES : QI_FROM_NOWHERE;

    fprintf(out, "        '%s') words='", path);
    for (const struct qi_command *const *a = command->actions; a && *a; a++)
        if (!(*a)->hidden)
            fprintf(out, "%s ", (*a)->name);
    for (size_t i = 0; (option = qi_next_visible(command, &i));) {
        if (!option->positional) {
            fprintf(out, "--%s ", option->name);
            continue;
        }
        if (source == QI_FROM_NOWHERE)
            source = qi_source_of(option);
        if (option->choices) {
            print_choices(out, option);
            fputc(' ', out);
        }
    }
    fprintf(out, "' kind=%s ;;\n", kinds[source]);
}

static void print_bash(FILE *out, const struct qi_command *root)
{
    fprintf(out,
            "# bash completion for %s; made by `%s completion bash`\n"
            "_%s()\n{\n"
            "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}\n"
            "    local path=%s words= kind= i\n"
            "    COMPREPLY=()\n"
            "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
            "        case \"$path ${COMP_WORDS[i]}\" in\n",
            root->name, root->name, root->name, root->name);
    each_command(out, root->name, root, bash_path);
    fputs("        esac\n"
          "    done\n"
          "    if [[ $cur == = ]]; then # --name=value comes as three words\n"
          "        cur=\n"
          "    elif [[ $prev == = ]]; then\n"
          "        prev=${COMP_WORDS[COMP_CWORD - 2]}\n"
          "    fi\n"
          "    case \"$path $prev\" in\n",
          out);
    each_command(out, root->name, root, bash_values);
    fputs("    esac\n"
          "    if [[ -z $kind ]]; then\n"
          "        case $path in\n",
          out);
    each_command(out, root->name, root, bash_words);
    fprintf(out,
            "        esac\n"
            "        [[ $cur == -* ]] && kind=words\n"
            "    fi\n"
            "    case $kind in\n"
            "    words) mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\") ;;\n"
            "    files) compopt -o filenames 2>/dev/null\n"
            "        mapfile -t COMPREPLY < <(compgen -f -- \"$cur\") ;;\n"
            "    directories) compopt -o filenames 2>/dev/null\n"
            "        mapfile -t COMPREPLY < <(compgen -d -- \"$cur\") ;;\n"
            "    esac\n"
            "}\n"
            "complete -F _%s %s\n",
            root->name, root->name);
}

/* --- zsh --- */

/* The name of a command's function: "_qallow_checkpoint_save". */
static void zsh_function(FILE *out, const char *path)
{
    fputc('_', out);
    for (; *path; path++)
        fputc(*path == ' ' ? '_' : *path, out);
}

/* Text inside single quotes in an _arguments specification. */
static void zsh_text(FILE *out, const char *text)
{
    for (; *text; text++)
        if (*text == '\'')
            fputs("'\\''", out);
        else if (strchr("[]:\\", *text))
            fprintf(out, "\\%c", *text);
        else
            fputc(*text, out);
}

static void zsh_source(FILE *out, const struct qi_option *option)
{
    fputc(':', out);
    zsh_text(out, qi_argument_word(option));
    switch (qi_source_of(option)) {
    case QI_FROM_FILES:
        fputs(":_files", out);
        break;
    case QI_FROM_DIRECTORIES:
        fputs(":_files -/", out);
        break;
    case QI_FROM_CHOICES:
        fputs(":(", out);
        print_choices(out, option);
        fputc(')', out);
        break;
    case QI_FROM_NOWHERE:
        fputs(": ", out);
    }
}

static void zsh_option(FILE *out, const struct qi_option *option)
{
    const char *value = option->kind == QI_FLAG ? "" : option->implied ? "=-" : "=";

    fputs(" \\\n        ", out);
    if (option->positional) {
        fprintf(out, "'%s", option->kind == QI_LIST ? "*" : "");
        zsh_source(out, option);
        fputc('\'', out);
        return;
    }
    if (option->kind == QI_LIST)
        fputs("'*'", out);
    else if (option->letter)
        fprintf(out, "'(-%c --%s)'", option->letter, option->name);
    if (option->letter)
        fprintf(out, "{-%c%s,--%s%s}", option->letter, *value ? "+" : "", option->name, value);
    else
        fprintf(out, "--%s%s", option->name, value);
    fputs("'[", out);
    zsh_text(out, option->help);
    fputc(']', out);
    if (option->kind != QI_FLAG)
        zsh_source(out, option);
    fputc('\'', out);
}

static void zsh_command(FILE *out, const char *path, const struct qi_command *command)
{
    const struct qi_option *option;

    zsh_function(out, path);
    fputs("()\n{\n", out);
    if (command->actions)
        fputs("    local curcontext=$curcontext state line\n", out);
    fprintf(out, "    _arguments -s%s", command->actions ? " -C" : "");
    for (size_t i = 0; (option = qi_next_visible(command, &i));)
        zsh_option(out, option);
    if (!command->actions) {
        fputs("\n}\n", out);
        return;
    }
    fputs(" \\\n        '1: :->command' '*:: :->rest'\n    case $state in\n    command)\n"
          "        local -a commands=(\n",
          out);
    for (const struct qi_command *const *a = command->actions; *a; a++)
        if (!(*a)->hidden) {
            fprintf(out, "            '%s:", (*a)->name);
            zsh_text(out, (*a)->summary);
            fputs("'\n", out);
        }
    fputs("        )\n        _describe command commands\n        ;;\n    rest)\n"
          "        case $words[1] in\n",
          out);
    for (const struct qi_command *const *a = command->actions; *a; a++)
        if (!(*a)->hidden) {
            fprintf(out, "        %s) ", (*a)->name);
            zsh_function(out, path);
            fprintf(out, "_%s ;;\n", (*a)->name);
        }
    fputs("        esac\n        ;;\n    esac\n}\n", out);
}

static void print_zsh(FILE *out, const struct qi_command *root)
{
    fprintf(out, "#compdef %s\n# zsh completion for %s; made by `%s completion zsh`\n", root->name,
            root->name, root->name);
    each_command(out, root->name, root, zsh_command);
    /* autoloaded from $fpath the file is the function; sourced it has to be registered */
    fprintf(out,
            "if [[ $funcstack[1] == _%s ]]; then\n    _%s \"$@\"\nelse\n    compdef _%s %s\nfi\n",
            root->name, root->name, root->name, root->name);
}

/* --- fish --- */

static void fish_path(FILE *out, const char *path, const struct qi_command *command)
{
    (void)command;
    if (strchr(path, ' '))
        fprintf(out, " '%s'", path);
}

/* " -d 'text'", quoted for fish */
static void fish_description(FILE *out, const char *text)
{
    fputs(" -d '", out);
    for (; *text; text++) {
        if (*text == '\'' || *text == '\\')
            fputc('\\', out);
        fputc(*text, out);
    }
    fputs("'\n", out);
}

static void fish_source(FILE *out, const struct qi_option *option)
{
    switch (qi_source_of(option)) {
    case QI_FROM_FILES:
        fputs(option->positional ? " -F" : " -r -F", out);
        break;
    case QI_FROM_DIRECTORIES:
        fputs(" -x -a '(__fish_complete_directories)'", out);
        break;
    case QI_FROM_CHOICES:
        fputs(" -x -a '", out);
        print_choices(out, option);
        fputc('\'', out);
        break;
    case QI_FROM_NOWHERE:
        fputs(" -x", out);
    }
}

static void fish_command(FILE *out, const char *path, const struct qi_command *command)
{
    const struct qi_option *option;

    for (const struct qi_command *const *a = command->actions; a && *a; a++)
        if (!(*a)->hidden) {
            fprintf(out, "complete -c qallow -n \"__qallow_at '%s'\" -a %s", path, (*a)->name);
            fish_description(out, (*a)->summary);
        }
    for (size_t i = 0; (option = qi_next_visible(command, &i));) {
        fprintf(out, "complete -c qallow -n \"__qallow_at '%s'\"", path);
        if (!option->positional)
            fprintf(out, " -l %s", option->name);
        if (option->letter)
            fprintf(out, " -s %c", option->letter);
        if (option->kind != QI_FLAG)
            fish_source(out, option);
        fish_description(out, option->help);
    }
}

static void print_fish(FILE *out, const struct qi_command *root)
{
    fputs("# fish completion for qallow; made by `qallow completion fish`\n"
          "function __qallow_at\n"
          "    set -l path qallow\n"
          "    set -l words (commandline -opc)\n"
          "    for word in $words[2..-1]\n"
          "        switch \"$path $word\"\n"
          "            case",
          out);
    each_command(out, root->name, root, fish_path);
    fputs("\n                set path \"$path $word\"\n"
          "        end\n"
          "    end\n"
          "    test \"$path\" = \"$argv[1]\"\n"
          "end\n"
          "complete -c qallow -f\n",
          out);
    each_command(out, root->name, root, fish_command);
}

void qi_print_completion(FILE *out, const struct qi_command *root, enum qi_shell shell)
{
    static void (*const printers[])(FILE *, const struct qi_command *) = {
        [QI_BASH] = print_bash, [QI_ZSH] = print_zsh, [QI_FISH] = print_fish};

    printers[shell](out, root);
}
