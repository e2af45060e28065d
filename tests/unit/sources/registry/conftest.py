"""Fixtures for the tests of clients."""

import pytest


@pytest.fixture(name="at_once")
def at_once_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that failed is asked again at once."""
    monkeypatch.setattr("fusefs.sources.registry.availability._BACK_OFF", 0.0)
