"""imgfs __complete WORD…: the command that completion scripts call each time the user presses the key.

It answers within a second or not at all, without any message.  The answer is lines: the paths that the shell itself
completes (`nothing`, `files`, `folders`), the prefix of the word that stays (`docker-archive:`), and then one line for
each completion, ``WORD<TAB>MEANING``.
"""

import argparse
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping

from fusefs.cli.parsing.candidates import (
    FILES,
    FOLDERS,
    NOTHING,
    Answer,
    Completion,
    Typed,
    complete,
    matching,
    unquoted,
)
from fusefs.cli.parsing.grammar import grammar
from fusefs.cli.parsing.program import program_parser
from fusefs.errors import ImgfsError
from fusefs.oci.transport import TRANSPORTS, Holder, transport_of

_DEADLINE = 1.0
"""Seconds until an answer is too late."""
_ENGINE_TIMEOUT = 0.7
"""Seconds for an engine to connect, and to answer; without it the other completions are still in time."""
_KERNEL_TIMEOUT = 0.3
"""Seconds for kernel mounts to say whether they are of images."""
_PATHS = {Holder.FILE: FILES, Holder.DIRECTORY: FOLDERS, Holder.ENGINE: NOTHING}
"""The paths that a shell completes after a transport."""
_DEFAULT_PREFIX = re.compile(r"^(docker\.io/(library/)?|localhost/)")
"""The beginning of Podman's full names that may be omitted."""
_PLAIN_NAME = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-")


class _TooLate(BaseException):
    """The deadline has passed."""


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Print the answer."""

    def completed(kind: str, typed: Typed, word: str) -> Answer:
        try:
            return _completed(kind, typed, word, environment)
        except (ImgfsError, OSError):
            return Answer(NOTHING, "", ())

    signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, _DEADLINE)
    try:
        answer = complete(grammar(program_parser()), [unquoted(word) for word in arguments.words], completed)
        lines = [answer.paths, answer.prefix]
        lines += (f"{word}\t{meaning}" for word, meaning in answer.completions)
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.buffer.write("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
        sys.stdout.buffer.flush()
    except (_TooLate, BrokenPipeError):
        os._exit(0)  # at once, whatever is still waiting


def _give_up(*_: object) -> None:
    raise _TooLate


def _completed(kind: str, typed: Typed, word: str, environment: Mapping[str, str]) -> Answer:
    """Complete *word*, a value of the *kind* that the grammar names."""
    if kind.startswith("IMAGE"):
        return _image(typed, word, environment)
    if kind == "MOUNTPOINT":
        return _mounted(word) if typed.command.name == "imgfs umount" else Answer(FOLDERS, "", ())
    if kind == "GLOB" and typed.command.name == "imgfs mount":
        return Answer(NOTHING, "", matching(word, _images(typed, word, environment)))
    if kind == "OPTION[,…]":
        return _mount_options(word)
    return Answer({"FILE": FILES, "DIR": FOLDERS, "[PATH…] DEST": FILES}.get(kind, NOTHING), "", ())


def _image(typed: Typed, word: str, environment: Mapping[str, str]) -> Answer:
    if transport := transport_of(word):
        rest = word.removeprefix(transport.prefix)
        if transport.holder is not Holder.ENGINE:
            return Answer(NOTHING if ":" in rest else _PATHS[transport.holder], transport.prefix, ())
        return Answer(NOTHING, transport.prefix, matching(rest, _images(typed, rest, environment)))
    if ":/" in word:  # a path in an image
        return Answer(NOTHING, "", ())
    if word.startswith((".", "/", "~")):
        return Answer(FILES, "", ())
    found = matching(word, _images(typed, word, environment))
    found += matching(word, (Completion(each.prefix, each.meaning) for each in TRANSPORTS.values()))
    if word and not found:
        return Answer(NOTHING if ":" in word else FILES, "", ())
    return Answer(NOTHING, "", found + matching(word, _archives()))


def _images(typed: Typed, word: str, environment: Mapping[str, str]) -> Iterator[Completion]:
    """Yield the images in the engine; by their short names, unless *word* begins the full name."""
    from fusefs.sources.engine.endpoint import find_endpoint  # noqa: PLC0415 - a tenth of a second
    from fusefs.sources.engine.names import image_names  # noqa: PLC0415

    endpoint = find_endpoint(typed.values.get("--host"), typed.values.get("--context"), environment)
    for name in image_names(endpoint, _ENGINE_TIMEOUT):
        short = _DEFAULT_PREFIX.sub("", name, count=1)
        yield Completion(short if word and not name.startswith(word) else name)


def _archives() -> Iterator[Completion]:
    """Yield the archives in the current directory with names that need no quotes."""
    from fusefs.sources.argument import FileImage, parse_image  # noqa: PLC0415

    for entry in sorted(os.listdir()):
        if set(entry) <= _PLAIN_NAME and entry[0] not in ".-" and "." in entry:
            try:
                is_path = isinstance(parse_image(entry), FileImage)
            except ImgfsError:
                continue
            if is_path:
                yield Completion(entry)


def _mounted(word: str) -> Answer:
    """Complete a mountpoint, or an image that is mounted once.

    From the kernel's table: a stuck FUSE mount would not answer.
    """
    from fusefs.cli.commands.umount import named_mounts  # noqa: PLC0415

    here = os.getcwd().rstrip("/") + "/"
    beginning = "./" if word.startswith("./") else ""
    shown = []
    found = named_mounts(_KERNEL_TIMEOUT)
    for mountpoint in (status.mount.mountpoint for status in found):
        if word.startswith("~/"):
            if mountpoint.startswith(os.path.expanduser(word)):
                shown.append(mountpoint)
        elif word.startswith("/") or (not word and not mountpoint.startswith(here)):
            shown.append(mountpoint)
        elif mountpoint.startswith(here):
            shown.append(beginning + mountpoint.removeprefix(here))
    expanded = "" if word.startswith("~/") else word
    completions = [*map(Completion, dict.fromkeys(shown))]
    images = Counter(status.image for status in found)
    if not word.startswith(("/", "~", ".")):
        places = {status.image: status.mount.mountpoint for status in found}
        completions += (
            Completion(image, places[image])
            for image, times in images.items()
            if times == 1 and not image.startswith(("/", "…"))
        )
    return Answer(NOTHING, "", matching(expanded, completions))


def _mount_options(word: str) -> Answer:
    """Complete the last of the comma-separated words after ``-o``."""
    from fusefs.cli.parsing.mount_options import offered  # noqa: PLC0415

    before, comma, last = word.rpartition(",")
    return Answer(NOTHING, before + comma, matching(last, map(Completion, offered())))
