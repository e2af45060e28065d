# ruff: noqa: INP001 - a script's module, not a package's
"""The manual page: man/imgfs.1.in with the grammar of the command line, the errors and the version filled in.

scripts/man writes it.  The texts are those of --help.
"""

import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

from fusefs import __version__
from fusefs.cli.parsing.grammar import Command, Group, Option, grammar
from fusefs.cli.parsing.image_forms import FORMS
from fusefs.cli.parsing.image_options import IMAGE_GROUPS
from fusefs.cli.parsing.mount_options import offered
from fusefs.cli.parsing.program import program_parser
from fusefs.errors import ImgfsError

FOLDER = Path(__file__).parent.parent / "man"


def manual() -> str:
    """Return the page."""
    program = grammar(program_parser())
    parts = {
        "VERSION": [__version__],
        "SYNOPSIS": _synopsis(program),
        "FORMS": _forms(),
        "COMMANDS": _commands(program),
        "OPTIONS": _common_options(program),
        "LONG": [*_commas(word for word in offered() if _is_long(program, word))],
        "EXIT": _exit_codes(),
        "EXAMPLES": _examples(program),
    }
    page = (FOLDER / "imgfs.1.in").read_text()
    for name, lines in parts.items():
        page = page.replace(f"@{name}@", "\n".join(lines))
    return page


def _leaves(command: Command) -> Iterator[Command]:
    """Yield the commands without subcommands."""
    if not command.commands:
        yield command
    for below in command.commands.values():
        yield from _leaves(below)


def _synopsis(program: Command) -> Iterator[str]:
    for command in _leaves(program):
        yield _called(command)
        yield ".br"
    yield f"{_bold('imgfs --version')}, {_bold('imgfs')} [{_italic('COMMAND')}] {_bold('--help')}"


def _called(command: Command) -> str:
    operands = [
        "|".join(map(_bold, operand.choices)) if operand.choices else _italic(operand.shown)
        for operand in command.operands
    ]
    return " ".join([_bold(command.name), f"[{_italic('options')}]", *operands])


def _forms() -> Iterator[str]:
    for form, meaning in FORMS:
        yield ".TP"
        yield ", ".join(map(_bold, form.split("  ")))
        yield _text(meaning)


def _commands(program: Command) -> Iterator[str]:
    for command in _leaves(program):
        yield f".SS {_called(command)}"
        yield _text(command.description)
        groups = [group for group in command.groups if group.title not in IMAGE_GROUPS]
        for group in groups:
            yield from _options(group)
        if len(groups) < len(command.groups):
            yield ".PP"
            yield f"The options of all commands that open an image are in {_bold('OPTIONS')}."


def _common_options(program: Command) -> Iterator[str]:
    for group in program.commands["mount"].groups:
        if group.title in IMAGE_GROUPS:
            yield f".SS {_plain(group.title.capitalize())}"
            yield from _options(group)


def _options(group: Group) -> Iterator[str]:
    for option in group.options:
        if option.names[-1] == "--help":  # described once, at OPTIONS
            continue
        yield ".TP"
        yield _option(option)
        yield _text(option.help)


def _option(option: Option) -> str:
    return ", ".join(map(_bold, option.names)) + (f" {_italic(option.value)}" if option.value else "")


def _commas(words: Iterable[str]) -> list[str]:
    *most, last = map(_bold, words)
    return [*(f"{word}," for word in most), last]


def _is_long(program: Command, word: str) -> bool:
    name = f"--{word.rstrip('=')}"
    return any(name in option.names for option in program.commands["mount"].options())


def _exit_codes() -> Iterator[str]:
    codes = {
        0: "Success; also after a signal with --foreground, and for diff without --exit-code.",
        ImgfsError.exit_code: "A bug, with a traceback; of diff --exit-code: there are differences.",
        **{error.exit_code: (error.__doc__ or "").splitlines()[0] for error in ImgfsError.__subclasses__()},
        130: "Interrupted.",
        141: "Broken pipe: the reader closed the output (for example head).",
    }
    for code, meaning in sorted(codes.items()):
        yield ".TP"
        yield _bold(str(code))
        yield _text(meaning)


def _examples(program: Command) -> Iterator[str]:
    for command in (program, *_leaves(program)):
        yield from map(_plain, command.examples)


def _text(text: str) -> str:
    """Return *text* in lines that are easy to compare."""
    return "\n".join(map(_plain, textwrap.wrap(text, 72, break_long_words=False, break_on_hyphens=False)))


def _bold(text: str) -> str:
    return rf"\fB{_plain(text)}\fR"


def _italic(text: str) -> str:
    return rf"\fI{_plain(text)}\fR"


def _plain(text: str) -> str:
    r"""Return *text* as roff shows it: a hyphen is ``\-``, so that what is copied from the page works."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("…", "...").replace("'", r"\(aq").replace("~", r"\(ti")
    return rf"\&{text}" if text.startswith((".", r"\(aq")) else text


if __name__ == "__main__":
    sys.stdout.write(manual())
