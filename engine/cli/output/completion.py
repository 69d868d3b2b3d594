"""The scripts by which a shell completes `bulksubmit`, made of the commands and options that there are.

Commands, options and choices stand in the script. Only the names of jobs are asked for, by `completion --jobs`. It is
printed and nothing else: no file of the shell is changed.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from engine import __version__
from engine.commands.examples import examples
from engine.commands.init import AskedQuestion, questions
from engine.commands.wiring import SERVICES
from engine.model.record import Format
from engine.services.described.shipped import shipped_kinds

_FILES = frozenset({"FILE", "PATH", "SOURCE..."})
_FOLDERS = frozenset({"DIR"})
_JOBS = frozenset({"JOB"})


class _Option(Struct, frozen=True):
    """An option: its names, its sentence, and what its value is."""

    names: Sequence[str]
    help: str
    value: str
    """files, folders, words, other, or "": it takes none."""
    words: Sequence[str] = ()


class _Command(Struct, frozen=True):
    """A command: its name, its sentence, its options, and what its arguments are."""

    name: str
    help: str
    options: Sequence[_Option]
    argument: str
    """files, folders, jobs, words or other."""
    words: Sequence[str] = ()


def script(shell: str, commands: Mapping[str, Any]) -> str:
    """Return the script for a shell, of SCRIPTS; `commands`: those of the command line by name."""
    return SCRIPTS[shell]([_read(name, command) for name, command in commands.items()])


def _read(name: str, command: Any) -> _Command:
    options, argument, words = [], "other", _NAMED.get(name, tuple)()
    for one in command.params:
        if one.param_type_name == "argument":
            argument = "words" if words else _kind(one.metavar or "")
            continue
        choices = _choices(one)
        value = "" if one.is_flag else "words" if choices else _kind(one.metavar or "")
        options.append(_Option([*one.opts], one.help, value, choices))
    if name == "init":  # the questions of our own services; those of a package are not loaded for it
        asked = {one.option: one for kind in SERVICES for one in questions(kind)}
        options += [
            _Option([*_flags(one)], f"{one.question.text}.", "" if one.yes_no else "other") for one in asked.values()
        ]
    options.append(_Option(["--help", "-h"], "Show what the command does.", ""))
    return _Command(name, command.help.partition("\n")[0], options, argument, words)


def _flags(asked: AskedQuestion) -> Sequence[str]:
    return [asked.option, f"--no-{asked.option[2:]}"] if asked.yes_no else [asked.option]


def _kind(metavar: str) -> str:
    kinds = {"files": _FILES, "folders": _FOLDERS, "jobs": _JOBS}
    return next((kind for kind, metavars in kinds.items() if metavar in metavars), "other")


def _choices(option: Any) -> Sequence[str]:
    if option.metavar == "FORMAT" and option.name == "source_format":
        return [*Format]
    kind = getattr(option, "type_descriptor", None)  # None: typer before 0.29
    choices = getattr(kind if kind is not None else option.type, "choices", None) or ()
    return [str(getattr(one, "value", one)) for one in choices]


_NAMED: Mapping[str, Callable[[], Sequence[str]]] = {
    "completion": lambda: sorted(SCRIPTS),
    "examples": lambda: [one.name for one in examples()],
    "init": lambda: sorted([*SERVICES, *shipped_kinds()]),
}
"""Command → the words that its argument may be."""


def _names(options: Sequence[_Option], value: str | None = None) -> str:
    return " ".join(name for one in options if value is None or one.value == value for name in one.names)


def _cases(commands: Sequence[_Command]) -> str:
    """Return what bash and zsh know of each command, as the cases of one statement."""
    lines = []
    for one in commands:
        words = [
            f'"{name}") values={shlex.quote(" ".join(option.words))} ;;'
            for option in one.options
            if option.value == "words"
            for name in option.names
        ]
        lines += [
            f"    {one.name})",
            f"      options={shlex.quote(_names(one.options))}",
            f"      files={shlex.quote(_names(one.options, 'files'))}",
            f"      folders={shlex.quote(_names(one.options, 'folders'))}",
            f"      other={shlex.quote(_names(one.options, 'other'))}",
            f"      argument={one.argument} arguments={shlex.quote(' '.join(one.words))}",
            *(['      case "$previous" in', *[f"        {line}" for line in words], "      esac"] if words else []),
            "      ;;",
        ]
    return "\n".join(lines)


def _bash(commands: Sequence[_Command]) -> str:
    return f"""\
# bash completion of bulksubmit {__version__}. Keep it in a file that bash reads:
#   bulksubmit completion bash > ~/.local/share/bash-completion/completions/bulksubmit
_bulksubmit() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} command=${{COMP_WORDS[1]}}
  local options= files= folders= other= argument= arguments= values= kind=
  COMPREPLY=()
  if [[ $current == = ]]; then current=; elif [[ $previous == = ]]; then previous=${{COMP_WORDS[COMP_CWORD-2]}}; fi
  if (( COMP_CWORD == 1 )); then
    COMPREPLY=($(compgen -W {shlex.quote(_all(commands))} -- "$current"))
    return
  fi
  case "$command" in
{_cases(commands)}
    *) return ;;
  esac
  if [[ -n $values ]]; then kind=words
  elif [[ " $files " == *" $previous "* ]]; then kind=files
  elif [[ " $folders " == *" $previous "* ]]; then kind=folders
  elif [[ " $other " == *" $previous "* ]]; then return
  elif [[ $current == -* ]]; then kind=words values=$options
  else kind=$argument values=$arguments
  fi
  case "$kind" in
    words) COMPREPLY=($(compgen -W "$values" -- "$current")) ;;
    files) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
    folders) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
    jobs)
      local program=${{1/#\\~/$HOME}}
      mapfile -t COMPREPLY < <("$program" completion --jobs "$current" "${{COMP_WORDS[@]:1}}" 2>/dev/null)
      ;;
  esac
}}
complete -F _bulksubmit bulksubmit
"""


def _all(commands: Sequence[_Command]) -> str:
    return " ".join([*(one.name for one in commands), "--help", "--version"])


def _zsh(commands: Sequence[_Command]) -> str:
    described = "\n".join(f"    {shlex.quote(f'{one.name}:{one.help}')}" for one in commands)
    return f"""\
#compdef bulksubmit
# zsh completion of bulksubmit {__version__}. Keep it as _bulksubmit in a folder of $fpath, before compinit:
#   bulksubmit completion zsh > ~/.zfunc/_bulksubmit
_bulksubmit() {{
  local current=$words[CURRENT] previous=$words[CURRENT-1] command=$words[2]
  local options= files= folders= other= argument= arguments= values= kind=
  local commands=(
{described}
  )
  if (( CURRENT == 2 )); then
    _describe 'command' commands
    return
  fi
  case "$command" in
{_cases(commands)}
    *) return 1 ;;
  esac
  if [[ -n $values ]]; then kind=words
  elif [[ " $files " == *" $previous "* ]]; then kind=files
  elif [[ " $folders " == *" $previous "* ]]; then kind=folders
  elif [[ " $other " == *" $previous "* ]]; then return 1
  elif [[ $current == -* ]]; then kind=words values=$options
  else kind=$argument values=$arguments
  fi
  case "$kind" in
    words) compadd -- ${{=values}} ;;
    files) _files ;;
    folders) _files -/ ;;
    jobs) compadd -- ${{(f)"$(${{~words[1]}} completion --jobs "$current" ${{words[2,-1]}} 2>/dev/null)"}} ;;
  esac
}}
if [[ $funcstack[1] == _bulksubmit ]]; then _bulksubmit "$@"; else compdef _bulksubmit bulksubmit; fi
"""


_FISH_VALUES = {"files": "-r -F", "folders": "-x -a '(__fish_complete_directories)'", "other": "-x"}
_FISH_ARGUMENTS = {
    "files": "-F",
    "folders": "-a '(__fish_complete_directories)'",
    "jobs": "-a '(bulksubmit completion --jobs (commandline -ct) (commandline -opc)[2..-1] 2>/dev/null)'",
}


def _fish(commands: Sequence[_Command]) -> str:
    lines = [
        f"# fish completion of bulksubmit {__version__}. Keep it where fish looks:",
        "#   bulksubmit completion fish > ~/.config/fish/completions/bulksubmit.fish",
        "complete -c bulksubmit -e",
        "complete -c bulksubmit -f",
        "complete -c bulksubmit -n __fish_use_subcommand -l help -s h -d 'Show the commands.'",
        "complete -c bulksubmit -n __fish_use_subcommand -l version -d 'Show the version.'",
    ]
    for one in commands:
        when = f"complete -c bulksubmit -n '__fish_seen_subcommand_from {one.name}'"
        lines.append(f"complete -c bulksubmit -n __fish_use_subcommand -a {one.name} -d {_fish_text(one.help)}")
        argument = f"-a {_fish_text(' '.join(one.words))}" if one.words else _FISH_ARGUMENTS.get(one.argument)
        lines += [f"{when} {argument}"] if argument else []
        for option in one.options:
            value = f"-x -a {_fish_text(' '.join(option.words))}" if option.words else _FISH_VALUES.get(option.value)
            names = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
            lines.append(" ".join(filter(None, [when, *names, value, f"-d {_fish_text(option.help)}"])))
    return "\n".join(lines) + "\n"


def _fish_text(text: str) -> str:
    """Return a text in single quotes, in which fish knows two escapes."""
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"


SCRIPTS: Mapping[str, Callable[[Sequence[_Command]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
"""Shell → what writes its script."""
