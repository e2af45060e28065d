"""The long form of the drills: ``python -m tests.soak DRILL [NUMBERS]``; see ``scripts/soak``."""

import logging
import random
import resource
import sys
import time
from collections.abc import Callable

from tests import drills, engine_drills, waiting_drills
from tests.fuzz_oracles import check
from tests.fuzzing import HONEST, LYING, archive, damaged
from tests.mounts import bench


def kill(rounds: int = 100) -> None:
    """Kill at random moments."""
    with bench() as imgfs:
        imgfs.log_is_quiet = False
        seed = time.time_ns()
        print(f"seed {seed}", flush=True)
        found = drills.kill(imgfs, rounds, seed)
    for what, count in sorted(found.items()):
        print(f"killed while {what}: {count}")
    print(f"{found.total()} kills, nothing left, all digests right")


def engine(rounds: int = 100) -> None:
    """Kill while an engine sends, and while that is kept."""
    with bench() as imgfs:
        imgfs.log_is_quiet = False
        seed = time.time_ns()
        print(f"seed {seed}", flush=True)
        found = engine_drills.kill(imgfs, rounds, seed)
    for moment, count in sorted(found.items()):
        print(f"killed while {moment}: {count}")
    print(f"{found.total()} kills, nothing left, all digests right")


def waiting(clients: int = 100, seconds: int = 60) -> None:
    """Read what is in memory while others wait for a disk."""
    with bench() as imgfs:
        served = waiting_drills.wait(imgfs, clients, seconds)
    print(
        f"{clients} reads wait for {seconds} s: another client reads {served.count:,} times meanwhile, "
        f"median {served.median * 1000:.2f} ms, slowest {served.slowest * 1000:.0f} ms; all bytes right"
    )


def load(clients: int = 100, minutes: int = 10) -> None:
    """Read with many clients."""
    with bench() as imgfs:
        found = drills.load(imgfs, clients, minutes * 60)
    print(
        f"{clients} clients, {minutes} minutes: {found.operations:,} operations, "
        f"{found.verified / 1e9:,.1f} GB compared, "
        f"slowest read {found.slowest:.2f} s, memory {found.memory[0]:,} to {found.memory[1]:,} KiB, "
        f"descriptors {found.descriptors[0]} to {found.descriptors[1]}"
    )


def mounts(loops: int = 200, at_once: int = 50) -> None:
    """Mount again and again, and many at once."""
    with bench() as imgfs:
        took = drills.mounts(imgfs, loops, at_once)
        drills.unmount_busy(imgfs, rounds=20)
    print(
        f"{loops} mounts in a loop ({took['loop']:.0f} s), {at_once} at once ({took['at once']:.0f} s), "
        "20 busy: nothing left"
    )


def fuzz_random(minutes: int = 10) -> None:
    """Walk layers of random parts."""
    logging.disable()
    seed, count, accepted = time.time_ns(), 0, 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    deadline = time.monotonic() + minutes * 60
    while time.monotonic() < deadline:
        rng = random.Random(seed + count)
        try:
            layers = [archive(rng, rng.choice((HONEST, LYING))) for _ in range(rng.randint(1, 3))]
            accepted += check([damaged(data, rng) if rng.randint(0, 1) else data for data in layers])
        except Exception:
            print(f"seed {seed + count} does it")
            raise
        count += 1
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{count:,} stacks of layers from seed {seed} on, {accepted:,} layers accepted, {more:,} KiB more memory")


DRILLS: dict[str, Callable[..., None]] = {
    "kill": kill,
    "engine": engine,
    "waiting": waiting,
    "load": load,
    "mounts": mounts,
    "random": fuzz_random,
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in DRILLS:
        sys.exit(f"usage: scripts/soak fuzz|{'|'.join(DRILLS)} [NUMBERS]")
    DRILLS[sys.argv[1]](*map(int, sys.argv[2:]))
