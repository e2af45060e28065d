"""Fixtures for the tests of the cache."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.conformance import closing_what_is_opened


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    with closing_what_is_opened():
        yield


@pytest.fixture(name="path")
def cache_path(tmp_path: Path) -> Path:
    """Where the cache is to be."""
    return tmp_path / "cache"
