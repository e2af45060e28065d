"""Random stacks of layers next to what other programs unpack of them; the long form is ``scripts/soak peers``."""

from collections.abc import Iterator

import pytest

from tests.conftest import TakeWarnings
from tests.drills import peer_drill
from tests.peers.unpackers import ContainerdStore, Engine, Umoci, Unpacker, umoci_folder
from tests.support.engines import RealEngine
from tests.support.mounts import Bench
from tests.support.requirements import ROOT, need


@pytest.fixture(scope="module", name="unpackers")
def unpackers_fixture(
    docker_engine: RealEngine,
    podman_engine: RealEngine,
    docker26_classic: RealEngine,
    docker26_containerd: RealEngine,
) -> Iterator[list[Unpacker]]:
    """Give the engines of the session, and umoci."""
    need(ROOT, "umoci", "ctr")
    with umoci_folder() as folder:
        yield [
            Engine("docker 20.10", docker_engine),
            Engine("docker 26", docker26_classic),
            ContainerdStore("docker 26 (containerd)", docker26_containerd),
            Engine("podman", podman_engine),
            Umoci(folder),
        ]


def test_a_random_stack_is_what_peers_unpack(
    imgfs: Bench, unpackers: list[Unpacker], take_warnings: TakeWarnings
) -> None:
    imgfs.log_is_quiet = False  # a member that is left out is said there
    found = peer_drill.compare(imgfs, unpackers, 30, every=10)
    take_warnings()
    assert found.faults == []
    assert found.mounted == 3
    assert found.verdicts["all agree"] > 3
