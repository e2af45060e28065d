"""What --help says: on a screen, in groups, with examples; and at once."""

import subprocess
import sys

import pytest

from fusefs.cli.parsing.grammar import Command, grammar
from fusefs.cli.parsing.program import program_parser
from tests.support.looks import printed
from tests.support.mounts import COMMAND

SCREEN = {"COLUMNS": "80", "LINES": "24"}


def commands(command: Command) -> list[Command]:
    """Return *command* and all in it."""
    return [command, *(one for below in command.commands.values() for one in commands(below))]


PROGRAM = grammar(program_parser())
ALL = commands(PROGRAM)
LONG = {"imgfs mount": 45, "imgfs diff": 28, "imgfs ls": 30, "imgfs find": 35, "imgfs": 29}
"""Commands whose help has more lines than a screen."""


@pytest.mark.parametrize("command", ALL, ids=lambda command: command.name)
def test_help_of_each_command_fits_a_screen(command: Command) -> None:
    lines = printed(*command.name.split()[1:], "--help", **SCREEN)
    assert lines[0] == f"usage: {command.synopsis}"
    assert [line for line in lines if len(line) > 80] == []
    assert len(lines) <= LONG.get(command.name, 24)


@pytest.mark.parametrize("command", ALL, ids=lambda command: command.name)
def test_help_of_each_command_names_all_its_options_and_commands_and_ends_with_examples(command: Command) -> None:
    shown = printed(*command.name.split()[1:], "--help", **SCREEN)
    words = {word.strip(",") for line in shown for word in line.split()}
    assert {option.names[-1] for option in command.options()} | command.commands.keys() <= words
    assert [shown[-len(command.examples) - 1], *map(str.strip, shown[-len(command.examples) :])] == [
        "examples:",
        *command.examples,
    ]


@pytest.mark.parametrize("command", ALL, ids=lambda command: command.name)
def test_each_command_and_each_option_is_explained(command: Command) -> None:
    assert command.description.endswith(".")
    assert [one.name for one in command.commands.values() if not one.summary] == []
    assert [option.shown for option in command.options() if not option.help] == []


def test_options_of_mount_stand_by_what_they_are_for() -> None:
    titles = [group.title for group in PROGRAM.commands["mount"].groups]
    assert titles[0] == "mounting"
    assert titles[1:] == ["image, engine and registry", "temporary files and cache", "messages"]


@pytest.mark.parametrize("columns", ["1", "40", "132"])
def test_help_can_be_read_on_other_terminals(columns: str) -> None:
    lines = printed("mount", "--help", COLUMNS=columns)
    assert max(map(len, lines)) <= 100
    assert "--platform OS/ARCH" in "\n".join(lines)


def test_options_of_all_commands_are_explained_in_one_place() -> None:
    lines = printed("help", "options", **SCREEN)
    assert lines[0] == "Options of all commands that open an image."
    assert [line for line in lines if len(line) > 80] == []
    shown = {word.strip(",") for line in lines for word in line.split()}
    common = {
        option.names[-1] for group in PROGRAM.commands["ls"].groups if group.named_only for option in group.options
    }
    assert common <= shown
    assert lines[-1].startswith("  https://…  s3://…  ")
    assert "imgfs help options explains IMAGE and these options:" in printed("ls", "--help")


@pytest.mark.parametrize("words", [["ls", "-h"], ["diff", "-h"]])
def test_h_is_for_sizes_where_sizes_are_shown(words: list[str]) -> None:
    done = subprocess.run([COMMAND, *words], capture_output=True, text=True, check=False)
    assert done.stderr.startswith("imgfs: the following arguments are required: IMAGE[:/PATH]")


def test_help_imports_nothing_but_the_parser() -> None:
    command = [sys.executable, "-X", "importtime", COMMAND, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    ours = {".".join(name.split(".")[:3]) for name in imported if name.startswith("fusefs.")}
    assert ours == {
        *("fusefs.cli", "fusefs.cli.caller", "fusefs.cli.imports", "fusefs.cli.output", "fusefs.cli.parsing"),
        *("fusefs.errors", "fusefs.oci", "fusefs.oci.transport", "fusefs.pattern", "fusefs.progress", "fusefs.text"),
    }
    assert not {"asyncio", "ctypes", "hashlib", "json", "logging", "pathlib", "socket", "ssl", "threading"} & imported
