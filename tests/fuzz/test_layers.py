"""Layers of random parts, honest, lying and damaged: an error of ours or a tree that can be read, in bounded work."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import TakeWarnings
from tests.fuzz.oracles import TARGETS, check, check_image, one_input
from tests.fuzz.random_archives import HONEST, LYING, archive, damaged
from tests.support.layouts import COMPRESSED_LAYOUTS, LAYOUTS

RANDOM = st.randoms(use_true_random=False)


@pytest.fixture(autouse=True)
def warnings_are_printable(take_warnings: TakeWarnings) -> Iterator[None]:
    """Hard links to nothing and the like are warned of: that is right, whatever is in it."""
    yield
    assert all(warning.isprintable() for warning in take_warnings())


@given(rng=RANDOM)
@settings(max_examples=600, derandomize=True, suppress_health_check=[*HealthCheck], deadline=None)
def test_lying_layers_are_refused_or_can_be_walked(rng: random.Random) -> None:
    check([archive(rng, LYING) for _ in range(rng.randint(1, 3))])


@given(rng=RANDOM)
@settings(max_examples=600, derandomize=True, suppress_health_check=[*HealthCheck], deadline=None)
def test_damaged_layers_are_refused_or_can_be_walked(rng: random.Random) -> None:
    check([damaged(archive(rng, HONEST), rng) for _ in range(rng.randint(1, 3))])


CORPUS = range(4000)
"""Seeds that every run replays: the same archives each time, on every machine."""


@pytest.mark.parametrize("start", range(0, len(CORPUS), 1000))
def test_the_corpus_is_refused_or_can_be_walked(start: int) -> None:
    accepted = 0
    for seed in CORPUS[start : start + 1000]:
        rng = random.Random(seed)
        data = archive(rng, LYING)
        accepted += check([damaged(data, rng) if seed % 2 else data])
    assert 200 < accepted < 800, "the corpus is no mixture"


@pytest.mark.parametrize("seed", range(0, 1000, 50))
def test_honest_layers_are_all_accepted(seed: int) -> None:
    assert check([archive(random.Random(seed), HONEST)]) == 1


@pytest.mark.parametrize("target", range(len(TARGETS)), ids=[target.__name__ for target in TARGETS])
def test_what_fuzzers_run_takes_any_bytes(target: int) -> None:
    for seed in range(100):
        rng = random.Random(seed)
        size = rng.choice((0, 10, 100, 1000, 5000))
        one_input(bytes([target]) + (rng.randbytes(size) if seed % 2 else rng.choice((b"0", b"9 a=", b"{[")) * size))


ARCHIVES = [build() for build in (*LAYOUTS.values(), *COMPRESSED_LAYOUTS.values())]


@pytest.mark.parametrize("number", range(len(ARCHIVES)), ids=[*LAYOUTS, *COMPRESSED_LAYOUTS])
def test_damaged_archives_are_refused_or_can_be_looked_at(number: int) -> None:
    check_image(ARCHIVES[number])
    for seed in range(20):
        check_image(damaged(ARCHIVES[number], random.Random(seed)))
