"""Hostile answers of an engine: every fault in the answer to every request of every client."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.drills.hostile_drill import Case, Command, check_mount, mount_words
from tests.support.fake_engine import fake_engine
from tests.support.mounts import Bench


def cases() -> Iterator[Case]:
    """Yield all cases."""
    for client in ("unix", "tcp"):

        @contextmanager
        def arranged(imgfs: Bench, client: str = client) -> Iterator[Command]:
            with fake_engine(socket=imgfs.folder / "engine.sock" if client == "unix" else None) as engine:
                yield Command(mount_words(imgfs, "img"), environment={"DOCKER_HOST": engine.host})

        yield Case(f"{client}: honest", arranged, check_mount, statuses=frozenset({0}))
