"""The manual page: made of what --help is made of, complete, and as the programs that show it want it."""

import re
import subprocess
from pathlib import Path

import pytest
from manpage import FOLDER, manual

from fusefs.cli.parsing.grammar import Command, grammar
from fusefs.cli.parsing.mount_options import offered
from fusefs.cli.parsing.program import program_parser
from fusefs.errors import ImgfsError
from fusefs.oci.transport import TRANSPORTS, URL_SCHEMES
from tests.support.looks import printed
from tests.support.requirements import need

PAGE = FOLDER / "imgfs.1"
PROJECT = FOLDER.parent
SECTIONS = [
    *("NAME", "SYNOPSIS", "DESCRIPTION", "IMAGE", "COMMANDS", "OPTIONS", "MOUNT OPTIONS", "EXIT STATUS"),
    *("ENVIRONMENT", "FILES", "EXAMPLES", "SEE ALSO"),
]
_VARIABLE = re.compile(r'environ(?:ment)?(?:\.get\(|\[)"([A-Z_]+)"')
_STANDARD = {"HOME"}
"""Variables that every program reads."""


def shown() -> str:
    """Return the page as plain text in words, each separated by one blank."""
    need("man")
    words = ["man", "-E", "ascii", "-l", str(PAGE)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, env={"MANWIDTH": "500", "PATH": "/usr/bin:/bin"}
    )
    return " ".join(re.sub(".\b", "", done.stdout).split())


def test_the_page_is_what_scripts_man_writes() -> None:
    assert PAGE.read_text() == manual(), "scripts/man writes it anew"


def test_the_page_has_the_sections_of_a_manual() -> None:
    assert re.findall('^\\.SH "?([A-Z ]+)', PAGE.read_text(), re.MULTILINE) == SECTIONS


@pytest.mark.parametrize(
    "words",
    [
        ["mandoc", "-T", "lint", "-W", "style"],
        ["groff", "-man", "-ww", "-z"],
        ["man", "--warnings", "-E", "UTF-8", "-Tutf8", "-Z", "-l"],
    ],
    ids=lambda words: words[0],
)
def test_who_shows_the_page_has_nothing_to_complain_about(words: list[str]) -> None:
    need(words[0])
    done = subprocess.run([*words, str(PAGE)], capture_output=True, text=True, check=False)
    complaints = done.stdout + done.stderr if words[0] == "mandoc" else done.stderr
    assert (done.returncode, complaints) == (0, "")


def test_what_help_says_of_each_option_the_page_says_too() -> None:
    text = shown().replace("...", "…")

    def said_by(command: Command) -> list[str]:
        options = [option for option in command.options() if option.names[-1] != "--help"]
        if command.commands:
            below = [one for each in command.commands.values() for one in said_by(each)]
            return below + [f"{option.names[-1]}" for option in options]
        return [
            command.synopsis,
            command.description,
            *(f"{option.shown} {option.help}" for option in options),
            *command.examples,
        ]

    wanted = (" ".join(one.split()) for one in said_by(grammar(program_parser())))
    assert [one for one in wanted if one not in text] == []


def test_each_form_of_an_image_is_in_help_and_on_the_page() -> None:
    text = shown().replace("...", "…")
    forms = "\n".join(printed("mount", "--help", COLUMNS="80")).partition("IMAGE is one of:\n")[2].partition("\n\n")[0]
    rows = [re.split(" {2,}", line.strip()) for line in forms.splitlines()]
    places = {transport.prefix for transport in TRANSPORTS.values()} | {f"{scheme}://" for scheme in URL_SCHEMES}
    assert [place for place in places - {"http://"} if place not in forms] == []
    assert [row for row in rows if f"{', '.join(row[:-1])} {row[-1]}" not in text] == []


def test_each_mount_option_is_on_the_page() -> None:
    text = shown()
    assert [option for option in offered() if option not in text] == []


def test_each_variable_that_is_read_is_on_the_page() -> None:
    sources = (path.read_text() for path in (PROJECT / "fusefs").rglob("*.py"))
    variables = {name for source in sources for name in _VARIABLE.findall(source)} - _STANDARD
    text = shown().partition(" ENVIRONMENT ")[2].partition(" FILES ")[0]
    assert variables >= {"DOCKER_HOST", "IMGFS_CACHE_DIR", "NO_COLOR"}
    assert {name for name in variables if name not in text} == set()


def test_the_exit_codes_are_those_of_the_errors_and_of_the_reference() -> None:
    table = (PROJECT / "docs/reference.md").read_text().partition("## Exit codes")[2].partition("\n## ")[0]
    told = set(map(int, re.findall(r"^\| ([0-9]+) \|", table, re.MULTILINE)))
    page = PAGE.read_text().partition(".SH EXIT STATUS")[2].partition(".SH")[0]
    errors: list[type[ImgfsError]] = [ImgfsError, *ImgfsError.__subclasses__()]
    raised = {error.exit_code for error in errors}
    assert told == set(map(int, re.findall(r"^\\fB([0-9]+)\\fR$", page, re.MULTILINE))) == raised | {0, 130, 141}


def test_the_page_is_ascii_and_its_blanks_are_copied_as_they_are() -> None:
    text = Path(PAGE).read_text()
    assert text.isascii()
    assert not re.search(r"@[A-Z]+@", text)
    assert not re.search(r"[^\\\n]--", text), "a hyphen that is copied must be one: \\-"
