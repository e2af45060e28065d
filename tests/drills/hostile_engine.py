"""Hostile answers of an engine: every fault in the answer to every request of every client."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.drills.hostile_answers import FAULTS, FAULTS_OF_DOCUMENTS, Fault
from tests.drills.hostile_drill import Case, Command, check_mount, mount_words
from tests.support.builders import Archive
from tests.support.fake_engine import Answer, Script, fake_engine, json_answer
from tests.support.mounts import Bench, Finished

_TIMEOUT = "1"
"""Seconds that the command waits for an answer."""
_SECONDS = 10.0
"""Seconds in which it ends."""


def _body(answer: Answer) -> bytes:
    return b"".join(part for part in answer.parts if isinstance(part, bytes))


def _version(script: Script, client: str, bad: Answer) -> bytes:
    """Let the version be *bad*; over a unix socket it is asked for if the image is not described."""
    if client == "unix":
        script.inspect = json_answer({"message": "no"}, 500)
    honest, script.version = _body(script.version), bad
    return honest


def _inspect(script: Script, _: str, bad: Answer) -> bytes:
    script.inspect = bad
    return json.dumps(script.inspected()).encode()


def _save(script: Script, _: str, bad: Answer) -> bytes:
    script.save = bad
    return script.archive.data()


def _images(script: Script, _: str, bad: Answer) -> bytes:
    script.images = bad
    return json.dumps([{"RepoTags": ["img:latest"]}]).encode()


@dataclass(frozen=True)
class _Request:
    """A request of the command."""

    faults: dict[str, Fault]
    spoil: Callable[[Script, str, Answer], bytes]
    """Makes its answer a bad one; returns the body of an honest one."""
    words: Callable[[Bench], Sequence[str | Path]]
    """The command that asks."""
    check: Callable[[Bench, Finished], None]


def _mount(imgfs: Bench) -> Sequence[str | Path]:
    return [*mount_words(imgfs, "img", "--timeout", _TIMEOUT)]


def _complete(_: Bench) -> Sequence[str | Path]:
    return ["__complete", "mount", "im"]


def _completed(_: Bench, finished: Finished) -> None:
    """Check that names of images are completed, or none, without a word on stderr."""
    assert finished.err == ""
    assert finished.out.splitlines()[2:] in ([], ["img:latest\t"]), finished.out


_REQUESTS = {
    "version": _Request(FAULTS_OF_DOCUMENTS, _version, _mount, check_mount),
    "inspect": _Request(FAULTS_OF_DOCUMENTS, _inspect, _mount, check_mount),
    "save": _Request(FAULTS, _save, _mount, check_mount),
    "images": _Request(FAULTS_OF_DOCUMENTS, _images, _complete, _completed),
}


def cases() -> Iterable[Case]:
    """Yield all cases."""
    for name, request in _REQUESTS.items():
        for fault in request.faults:
            for client in ("unix", "tcp"):
                yield _case(f"{name} over {client}: {fault}", request, request.faults[fault], client)


def _case(name: str, request: _Request, fault: Fault, client: str) -> Case:
    @contextmanager
    def arranged(imgfs: Bench) -> Iterator[Command]:
        """Serve the fault; a redirect to another host is not followed."""
        socket = imgfs.folder / "engine.sock" if client == "unix" else None
        with fake_engine() as other, fake_engine(Script(Archive()), socket=socket) as engine:
            bad = Answer()
            honest = request.spoil(engine.script, client, bad)
            bad.raw = _Parts(fault, honest, other.host.removeprefix("tcp://"))
            yield Command(request.words(imgfs), environment={"DOCKER_HOST": engine.host})
            assert other.asked == [], name
        if socket:
            socket.unlink()

    return Case(name, arranged, request.check, seconds=_SECONDS)


@dataclass(frozen=True)
class _Parts:
    """A bad answer, each time that it is asked for."""

    fault: Fault
    honest: bytes
    elsewhere: str

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.fault(self.honest, self.elsewhere))
