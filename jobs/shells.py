"""How bash and zsh ask `vsdmot` for completions: a script for each, as Click prints it.

Click's own scripts put a space after every word, also after "key=", and they pass on the
words as bash splits them, which is also at "=".
"""

from __future__ import annotations

from os import environ

from click.shell_completion import BashComplete, ShellComplete, ZshComplete, split_arg_string

# Bash splits words at "=" if COMP_WORDBREAKS contains it, which is the default. Readline then
# replaces and completes only the part after "=". It completes files only if the reply is empty, so
# the script adds files if there are keys too.
_BASH = """\
%(complete_func)s() {
    local type value files=""
    COMPREPLY=()
    while IFS=',' read -r type value; do
        case $type in
            plain)
                COMPREPLY+=("$value") ;;
            key)
                compopt -o nospace
                COMPREPLY+=("$value") ;;
            value)
                [[ $COMP_WORDBREAKS == *=* ]] && value=${value#*=}
                COMPREPLY+=("$value") ;;
            file | value_file)
                compopt -o default
                files=1 ;;
        esac
    done < <(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" %(complete_var)s=bash_complete "$1")
    if [[ $files && ${#COMPREPLY[@]} -gt 0 ]]; then
        while IFS= read -r value; do
            [[ -d $value ]] && value+=/
            printf -v value %%q "$value"
            COMPREPLY+=("$value")
        done < <(compgen -f -X '.*' -- "$2")
    fi
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

_ZSH = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local type value help files=""
    local -a response plain keys values
    response=("${(@f)$(env COMP_LINE="${(j: :)words[1,CURRENT]}" \
%(complete_var)s=zsh_complete ${~words[1]})}")
    for type value help in "${(@)response}"; do
        case $type in
            plain) plain+=("$value:$help") ;;
            key) keys+=("$value:$help") ;;
            value) values+=("${value#*=}") ;;
            file | value_file) files=$type ;;
        esac
    done
    (( $#plain )) && _describe -V command plain
    (( $#keys )) && _describe -V setting keys -S ''
    if (( $#values )) || [[ $files == value_file || $PREFIX == --*=* ]]; then
        compset -P 1 '*='
    fi
    (( $#values )) && compadd -V values -a values
    [[ -n $files ]] && _files
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""


class _WholeWords(ShellComplete):
    """Splits the line up to the cursor at spaces, whatever the shell splits at."""

    def get_completion_args(self) -> tuple[list[str], str]:
        # The added letter makes the word at the cursor not empty, so it is always the last word.
        *complete, incomplete = split_arg_string(environ["COMP_LINE"] + "x")
        return complete[1:], incomplete[:-1]


class Bash(_WholeWords, BashComplete):
    """Completion in bash, from 4.4 on."""

    source_template = _BASH


class Zsh(_WholeWords, ZshComplete):
    """Completion in zsh; keys are shown with their meanings."""

    source_template = _ZSH
