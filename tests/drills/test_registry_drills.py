"""Faults, outages and expiries of registries; ``scripts/soak registry`` runs them for longer."""

from tests.drills import registry_drills
from tests.support.mounts import Bench


def test_faults_that_attempts_cure_are_not_seen() -> None:
    counts = registry_drills.commit_faults(150, seed=1, at_once=8)
    assert counts.total() >= 150
    assert len(counts) >= 12


def test_an_outage_ends_reads_in_time_and_nothing_else(imgfs: Bench) -> None:
    found = registry_drills.outage(imgfs)
    assert 2 <= found.errors[0] <= found.errors[1] < 3  # the timeout, and a slow machine
    assert found.others < 0.01
    assert found.back < 3
    assert found.unmounted < 1


def test_tokens_and_signed_urls_that_expire_are_renewed_once(imgfs: Bench) -> None:
    found = registry_drills.expire(imgfs, seconds=6, token=2, url=1, blobs=64)
    assert found.reads == 64
    assert found.tokens <= 1 + 1 + 6 / 2
    assert found.expired == 0


def test_a_mount_that_nobody_reads_makes_no_request(imgfs: Bench) -> None:
    with registry_drills.idle(imgfs) as proxy:
        assert proxy.requests() == []
