"""What one failure says about other requests."""

import pytest

from fusefs.errors import RegistryError
from fusefs.oci.digest import Digest
from fusefs.sources.registry import availability
from fusefs.sources.registry.availability import Availability

A, B, C = (Digest.of([name]) for name in (b"a", b"b", b"c"))
NAMES = {None: "manifest", A: "A", B: "B", C: "C"}


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def monotonic(self) -> float:
        """Return the time, a moment later each time."""
        self.now += 0.001
        return self.now


@pytest.fixture(name="clock", autouse=True)
def clock_fixture(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let the tests set the time, and a pause last for two seconds."""
    clock = Clock()
    monkeypatch.setattr(availability, "time", clock)
    monkeypatch.setattr(availability, "_BACK_OFF", 2.0)
    return clock


def stopped(place: Availability, *instead: Availability) -> list[str]:
    """Return what is not asked for now."""
    found = []
    for blob, name in NAMES.items():
        try:
            place.check(blob, instead=instead)
        except RegistryError:
            found.append(name)
    return found


def test_a_blob_that_fails_stops_no_other(clock: Clock) -> None:
    place = Availability("here")
    for _ in range(3):
        place.failed(RegistryError("500"), A)
        assert stopped(place) == ["A"]
        clock.now += 2
        assert stopped(place) == []
        place.succeeded(B)


@pytest.mark.parametrize("answer", ["succeeded", "answered"])
def test_two_blobs_that_fail_stop_all_unless_the_place_answered_in_between(answer: str) -> None:
    place = Availability("here")
    place.failed(RegistryError("500"), A)
    place.succeeded(C) if answer == "succeeded" else place.answered()
    place.failed(RegistryError("500"), B)
    assert stopped(place) == ["A", "B"]
    place.failed(RegistryError("500"), A)
    assert stopped(place) == [*NAMES.values()]
    place.succeeded(C)
    assert stopped(place) == []


def test_what_is_not_of_a_blob_stops_all() -> None:
    place = Availability("here")
    place.failed(RegistryError("refused"))
    assert stopped(place) == [*NAMES.values()]
    place.failed(RegistryError("500"), A)
    assert stopped(place) == [*NAMES.values()]


def test_a_blob_that_fails_at_a_mirror_is_asked_for_there_less_and_less(clock: Clock) -> None:
    mirror, registry = Availability("mirror"), Availability("registry")
    for pause in (2, 4, 8, 16, 32, 60, 60):
        mirror.failed(RegistryError("500"), A)
        registry.succeeded(A)
        mirror.succeeded(B)
        clock.now += pause - 0.5
        assert stopped(mirror, registry) == ["A"]
        clock.now += 0.5
        assert stopped(mirror, registry) == []
    mirror.succeeded(A)
    mirror.failed(RegistryError("500"), A)
    clock.now += 2
    assert stopped(mirror, registry) == []


def test_failures_of_many_blobs_take_little_memory() -> None:
    place = Availability("here")
    for number in range(200):
        place.failed(RegistryError("500"), Digest.of([b"%d" % number]))
        place.answered()
    assert len(place._failures) == 64
    with pytest.raises(RegistryError):
        place.check(Digest.of([b"199"]))
    place.check(Digest.of([b"0"]))


@pytest.mark.parametrize("answer", ["refused", "failed"])
def test_a_mirror_is_spared_for_long_only_while_the_last_answer_of_the_registry_was_no_error(
    clock: Clock, answer: str
) -> None:
    mirror, registry = Availability("mirror"), Availability("registry")
    for _ in range(3):
        mirror.failed(RegistryError("500"), A)
        registry.succeeded(A)
        clock.now += 2.5
    assert stopped(mirror, registry) == ["A"]
    registry.refused() if answer == "refused" else registry.failed(RegistryError("500"), B)
    assert stopped(mirror, registry) == []
