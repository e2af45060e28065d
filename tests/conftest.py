"""Fixtures for all tests."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = [
    "tests.support.engines",
    "tests.support.modern_engines",
    "tests.support.fsck_erofs",  # after what it imports
    "tests.support.lazy_images",
    "tests.support.mounts",
    "tests.support.looks",  # after what it imports
    "tests.support.namespaces",
    "tests.support.users",
]

# A shell starts a job in the background with SIGINT ignored, nohup with SIGHUP: every program of a test would be, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Folders of tests lie on a disk, as images and caches do: /tmp may be in memory, where the kernel forgets no page.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/var/tmp")

settings.register_profile("imgfs", database=None, deadline=5000, print_blob=True)
settings.load_profile("imgfs")

TakeWarnings = Callable[[], list[str]]


class _Kept(logging.Handler):
    """Keeps the messages of warnings and worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture(autouse=True)
def take_warnings() -> Iterator[TakeWarnings]:
    """Return a function that takes the warnings logged so far; one that no test takes is a failure."""
    kept = _Kept()
    logger = logging.getLogger("fusefs")
    logger.addHandler(kept)

    def take() -> list[str]:
        messages, kept.messages = kept.messages, []
        return messages

    yield take
    logger.removeHandler(kept)
    assert kept.messages == [], "logged, but not expected"


@pytest.fixture(autouse=True, scope="session")
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what is not told where to keep things out of the cache of whoever runs the tests."""
    os.environ["IMGFS_CACHE_DIR"] = str(tmp_path_factory.mktemp("caches") / "cache")


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of the test's own, so that names in messages are short."""
    monkeypatch.chdir(tmp_path)
