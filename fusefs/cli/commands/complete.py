"""imgfs __complete WORD…: what the completions of shells ask for, at each press of a key.

It answers in time or says nothing: no error, no message.  The answer is lines: what paths the shell is to complete
(`nothing`, `files`, `folders`), what the word keeps (`docker-archive:`), and then a candidate each, as
``WORD<TAB>MEANING``.
"""

import argparse
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping

from fusefs.cli.parsing.candidates import FILES, FOLDERS, NOTHING, Answer, Candidate, Typed, begun, complete, unquoted
from fusefs.cli.parsing.grammar import grammar
from fusefs.cli.parsing.program import program_parser
from fusefs.errors import ImgfsError
from fusefs.oci.transport import TRANSPORTS, Holder, transport_of

_PATIENCE = 1.0
"""Seconds that someone waits who has pressed a key."""
_ENGINE_TIMEOUT = 0.7
"""Seconds for an engine to connect, and to answer: what else there is to say is said then."""
_PATHS = {Holder.FILE: FILES, Holder.DIRECTORY: FOLDERS, Holder.ENGINE: NOTHING}
"""The paths that a shell completes behind a transport."""
_USUAL = re.compile(r"^(docker\.io/(library/)?|localhost/)")
"""What Podman's full names begin with, and need not."""
_PLAIN_NAME = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-")


class _TooLate(BaseException):
    """Nobody waits any longer."""


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Answer."""

    def look(kind: str, typed: Typed, word: str) -> Answer:
        try:
            return _look(kind, typed, word, environment)
        except (ImgfsError, OSError):
            return Answer(NOTHING, "", ())

    signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
    try:
        answer = complete(grammar(program_parser()), [unquoted(word) for word in arguments.words], look)
        lines = [answer.paths, answer.prefix]
        lines += (f"{word}\t{meaning}" for word, meaning in answer.candidates)
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.buffer.write("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
        sys.stdout.buffer.flush()
    except (_TooLate, BrokenPipeError):
        os._exit(0)  # whatever still hangs


def _give_up(*_: object) -> None:
    raise _TooLate


def _look(kind: str, typed: Typed, word: str, environment: Mapping[str, str]) -> Answer:
    """Complete a *word* that stands for the *kind* of value that the grammar names."""
    if kind.startswith("IMAGE"):
        return _image(kind, typed, word, environment)
    if kind == "MOUNTPOINT":
        return _mounted(word) if typed.command.name == "imgfs umount" else Answer(FOLDERS, "", ())
    if kind == "OPTION[,…]":
        return _mount_options(word)
    return Answer({"FILE": FILES, "DIR": FOLDERS}.get(kind, NOTHING), "", ())


def _image(kind: str, typed: Typed, word: str, environment: Mapping[str, str]) -> Answer:
    if transport := transport_of(word):
        rest = word.removeprefix(transport.prefix)
        if transport.holder is not Holder.ENGINE:
            return Answer(NOTHING if ":" in rest else _PATHS[transport.holder], transport.prefix, ())
        return Answer(NOTHING, transport.prefix, begun(rest, _images(kind, typed, rest, environment)))
    if ":/" in word:  # in an image
        return Answer(NOTHING, "", ())
    if word.startswith((".", "/", "~")):
        return Answer(FILES, "", ())
    found = begun(word, _images(kind, typed, word, environment))
    found += begun(word, (Candidate(each.prefix, each.meaning) for each in TRANSPORTS.values()))
    if word and not found:
        return Answer(NOTHING if ":" in word else FILES, "", ())
    return Answer(NOTHING, "", found + begun(word, _archives()))


def _images(kind: str, typed: Typed, word: str, environment: Mapping[str, str]) -> Iterator[Candidate]:
    """Yield the images of the engine that options and environment name, by the short names if the *word* begins one."""
    from fusefs.sources.engine.endpoint import find_endpoint  # noqa: PLC0415 - a tenth of a second
    from fusefs.sources.engine.names import image_names  # noqa: PLC0415

    path = ":/" if kind == "IMAGE:/PATH" else ""  # which goes on
    endpoint = find_endpoint(typed.values.get("--host"), typed.values.get("--context"), environment)
    for name in image_names(endpoint, _ENGINE_TIMEOUT):
        short = _USUAL.sub("", name, count=1)
        yield Candidate((short if word and not name.startswith(word) else name) + path)


def _archives() -> Iterator[Candidate]:
    """Yield the archives in the current folder whose names can stand beside images: as they are, without quotes."""
    from fusefs.sources.argument import FileImage, parse_image  # noqa: PLC0415

    for entry in sorted(os.listdir()):
        if set(entry) <= _PLAIN_NAME and entry[0] not in ".-" and "." in entry:
            try:
                is_path = isinstance(parse_image(entry), FileImage)
            except ImgfsError:
                continue
            if is_path:
                yield Candidate(entry)


def _mounted(word: str) -> Answer:
    """Return where images are mounted; the kernel's table says it, so that no mount that is stuck is asked."""
    from fusefs.cli.commands.umount import unmountable  # noqa: PLC0415

    here = os.getcwd().rstrip("/") + "/"
    beginning = "./" if word.startswith("./") else ""
    shown = []
    for mountpoint in unmountable():
        if word.startswith("~/"):
            if mountpoint.startswith(os.path.expanduser(word)):
                shown.append(mountpoint)
        elif word.startswith("/") or (not word and not mountpoint.startswith(here)):
            shown.append(mountpoint)
        elif mountpoint.startswith(here):
            shown.append(beginning + mountpoint.removeprefix(here))
    expanded = "" if word.startswith("~/") else word
    return Answer(NOTHING, "", begun(expanded, map(Candidate, dict.fromkeys(shown))))


def _mount_options(word: str) -> Answer:
    """Complete the last of the words after ``-o``."""
    from fusefs.cli.parsing.mount_options import offered  # noqa: PLC0415

    before, comma, last = word.rpartition(",")
    return Answer(NOTHING, before + comma, begun(last, map(Candidate, offered())))
