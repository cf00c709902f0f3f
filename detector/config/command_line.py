"""The one grammar of all programs: words -> options of the program, and a configuration.

    python PROGRAM POSITIONAL ... --option value --switch --list a b c --section.key value

`--flag=value` is `--flag value`. A program has a table of its own options, name -> Option:

    "run"      a positional; of type list[...] (the last one only) it takes all further words
    "--out"    a flag with one value, or, of type bool, a switch without any
    "--seeds"  of type list[...]: a flag with all words that follow, up to the next flag
    "--vary"   of type list[list[...]]: the same, a list for every time that it is given

All other flags are keys of the configuration, with one value each, written as in YAML.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from detector.config.errors import UserError
from detector.config.help import format_help
from detector.config.options import OPTIONS
from detector.config.resolve import resolve
from detector.config.sources import Value, check, dump, parse_value, read
from detector.config.types import Option, describe_type, did_you_mean

COMMAND_LINE = "command line"
HELP = {"--help": Option(bool, False, "print this and stop")}
PRINT_CONFIG = {"--print_config": Option(bool, False, "print the resolved configuration and stop")}
CONFIG = {"--config": Option(list[str], [], "a YAML file; again: later files win key by key")}
Options = Mapping[str, Option]


def parse(
    argv: Sequence[str],
    *,
    usage: str,
    program_options: Options | None = None,
    base: Callable[[dict[str, Any]], str | Path | None] | None = None,
    short: Mapping[str, str] | None = None,
    sections: Sequence[str] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The resolved configuration, and the program's own options.

    Later files win key by key, and the command line beats every file wherever it stands. `--help`
    and `--print_config` end the program. Raises UserError.

    Args:
        argv, usage, program_options, short, sections: as of `parse_options`.
        base: from the options and flags to the file that all others are laid over, such as a
            run's config.yaml; None where there is none.
    """
    table = {**(program_options or {}), **PRINT_CONFIG}
    options, overrides = parse_options(
        argv, usage=usage, program_options=table, short=short, sections=sections
    )
    for path in options["config"]:
        for key in read(path):
            _check_section(key, path, sections)
    files = list(options["config"])
    if base and (start := base({**overrides, **options})):
        files.insert(0, str(start))
    tree = resolve(files, overrides, COMMAND_LINE)
    if options.pop("print_config"):
        print(dump(tree), end="")
        raise SystemExit(0)
    return tree, options


def parse_options(
    argv: Sequence[str],
    *,
    usage: str,
    program_options: Options,
    short: Mapping[str, str] | None = None,
    sections: Sequence[str] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The program's own options, and the overrides of a configuration as `resolve` takes them.

    For programs with no configuration, or with more than one. Options are keyed by their names
    without dashes; `config` is the list of files. `--help` ends the program, and so does a call
    without words where some are needed: usage on stderr, exit status 2. Raises UserError.

    Args:
        argv: the words after the program's name.
        usage: what `--help` shows first.
        program_options: the table of the program's own options.
        short: flags that stand for other words, {"--beta": "--postprocess.beta"}.
        sections: what files and flags may change of a configuration; None: all; (): there is none.
    """
    short = short or {}
    has_config = sections is None or len(sections) > 0
    table = {**program_options, **(CONFIG if has_config else {}), **HELP}
    required = [name for name, option in table.items() if option.default is ...]
    if {"--help", "-h"} & set(argv):
        print(format_help(usage, table, short, sections))
        raise SystemExit(0)
    if not argv and (required or sections is None):
        print(f"{usage.strip()}\n\n--help lists all options", file=sys.stderr)
        raise SystemExit(2)
    given: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    for name, words in _groups([*_expand(argv, short)], table):
        if name in table:
            _add_option(given, name, words, table[name].kind)
        else:
            _check_flag(name, [*table, *short], sections)
            _add_override(overrides, name.removeprefix("--"), words)
    if missing := [name for name in required if name not in given]:
        raise UserError(f"{' and '.join(missing)} must be given; see --help")
    values = {name: given.get(name, option.default) for name, option in table.items()}
    return {name.removeprefix("--"): values[name] for name in values if name not in HELP}, overrides


def _expand(argv: Sequence[str], short: Mapping[str, str]) -> Iterator[str]:
    """The words with every short flag replaced by what it stands for."""
    for word in argv:
        name, equals, text = word.partition("=")
        if name in short:
            yield from [*short[name].split(), *([text] if equals else [])]
        else:
            yield word


def _groups(words: list[str], table: Options) -> Iterator[tuple[str, list[str]]]:
    """Every flag and every positional with the words that belong to it."""
    positionals = [name for name in table if not name.startswith("--")]
    is_list = False  # whether the flag before is a key with a list
    while words:
        word, *words = words
        name, equals, text = word.partition("=")
        if word.startswith("--"):
            key = name.removeprefix("--")
            is_list = key in OPTIONS and "list" in describe_type(OPTIONS[key].kind)
        if not word.startswith("--"):
            if not positionals:
                how = "lists of a key as --key '[1, 2]'" if is_list else "options as --key value"
                raise UserError(f"unexpected '{word}': type {how}")
            name = positionals[0]
            if get_origin(table[name].kind) is not list:
                positionals.pop(0)
            yield name, [word]
        elif equals:
            yield name, [text]
        else:
            kind = table[name].kind if name in table else Any
            flags = [k for k, other in enumerate(words) if other.startswith("--")]
            count = min([len(words), *flags])
            if get_origin(kind) is not list or name in CONFIG:
                count = min(count, 0 if kind is bool else 1)
            yield name, words[:count]
            words = words[count:]


def _add_option(given: dict[str, Any], name: str, words: list[str], kind: Any) -> None:
    """Sets an option of the program, or adds to its list."""
    if not words and kind is not bool:
        raise UserError(f"{name} needs a value: {describe_type(_item(kind))}")
    if get_origin(kind) is not list:
        if name in given:
            raise UserError(f"{name} is given twice ({COMMAND_LINE})")
        word = words[0] if words else "true"
        given[name] = check(name, Value(parse_value(word, kind), COMMAND_LINE), kind)
        return
    values: list[Any] = []
    for word in words:
        value = Value(parse_value(word, _item(kind)), COMMAND_LINE)
        values.append(check(name, value, _item(kind)))
    is_nested = get_origin(get_args(kind)[0]) is list
    given[name] = [*given.get(name, []), *([values] if is_nested else values)]


def _item(kind: Any) -> Any:
    """The type of one word: int of list[int] and of list[list[int]]."""
    return _item(get_args(kind)[0]) if get_origin(kind) is list else kind


def _add_override(overrides: dict[str, Any], key: str, words: list[str]) -> None:
    """Sets a key of the configuration; its type is checked when that is resolved."""
    kind = OPTIONS[key].kind if key in OPTIONS else Any
    if not words and kind not in (bool, Any):
        raise UserError(f"--{key} needs a value: {describe_type(kind)}")
    if key in overrides:
        raise UserError(f"{key} is given twice ({COMMAND_LINE})")
    overrides[key] = parse_value(words[0], kind) if words else True


def _check_flag(name: str, program_flags: Sequence[str], sections: Sequence[str] | None) -> None:
    """UserError for a flag of no section of the configuration; `resolve` checks the rest of it."""
    key = name.removeprefix("--")
    if sections != () and key.split(".")[0] in [known.split(".")[0] for known in OPTIONS]:
        _check_section(key, COMMAND_LINE, sections)
        return
    keys = [k for k in OPTIONS if sections is None or k.split(".")[0] in sections]
    flags = [flag for flag in program_flags if flag.startswith("--")]
    hint = did_you_mean(name, [*flags, *(f"--{key}" for key in keys)])
    raise UserError(f"there is no {name}{hint or '; --help lists all options'}")


def _check_section(key: str, origin: str, sections: Sequence[str] | None) -> None:
    if sections is not None and key.split(".")[0] not in sections:
        raise UserError(f"{key} ({origin}): only {', '.join(sections)} can be changed here")
