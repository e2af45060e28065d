"""The long form of the drills: ``python -m tests.drills.soak DRILL [NUMBERS]``; see ``scripts/soak``."""

import logging
import os
import random
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fusefs.mount.kernel.support import Backing
from tests.drills import (
    catalog_drill,
    changed_devices,
    engine_drills,
    erofs_drill,
    hostile_drill,
    many_at_once,
    member_drills,
    mount_drills,
    peer_drill,
    registry_drills,
    take_over_drill,
    waiting_drills,
)
from tests.drills.hostile_cases import KINDS
from tests.fuzz import processes
from tests.fuzz.oracles import check
from tests.fuzz.random_archives import HONEST, LYING, archive, damaged
from tests.peers.unpackers import all_unpackers
from tests.support.fsck_erofs import fsck_erofs
from tests.support.mounts import Bench, bench


class Figures(NamedTuple):
    """What a drill came to: a line of the table at the end.  Each drill fails if anything is left."""

    done: str
    compared: str = ""
    slowest: str = ""
    memory: str = ""


def fuzz(minutes: float = 12) -> Figures:
    """Fuzz, guided by coverage."""
    folder = Path(os.environ["IMGFS_FUZZ"])
    found = []
    for one in processes.fuzz(folder / "venv/bin/python", folder, minutes * 60):
        print(f"{one.target}: {one.executions:,} executions, {one.peak} MB{', FAILED' * one.failed}", flush=True)
        found.append(one)
    failed = [one.target for one in found if one.failed]
    assert not failed, f"see {folder}: {failed}"
    executions = sum(one.executions for one in found)
    return Figures(f"{executions:,} executions, 0 crashes", memory=f"{max(one.peak for one in found)} MB")


def kill(rounds: int = 100) -> Figures:
    """Kill at random moments."""
    total = _killed(mount_drills.kill, rounds)
    return Figures(f"{total} kills, {2 * total} mounts", "all, after each kill")


def engine(rounds: int = 100) -> Figures:
    """Kill while an engine sends, and while that is kept."""
    return Figures(f"{_killed(engine_drills.kill, rounds)} kills", "all, after each kill")


def _killed(drill: Callable[[Bench, int, int], Counter[str]], rounds: int) -> int:
    """Run a *drill* that kills, say when, and return how often it did."""
    with bench() as imgfs:
        imgfs.log_is_quiet = False
        seed = time.time_ns()
        print(f"seed {seed}", flush=True)
        found = drill(imgfs, rounds, seed)
    for moment, count in sorted(found.items()):
        print(f"killed while {moment}: {count}")
    return found.total()


def waiting(clients: int = waiting_drills.MOST, seconds: int = 60) -> Figures:
    """Read what is in memory while others wait for a disk."""
    with bench() as imgfs:
        served = waiting_drills.wait(imgfs, clients, seconds)
    return Figures(
        f"{clients} reads wait for {seconds} s: another client reads {served.count:,} times, "
        f"median {served.median * 1000:.2f} ms",
        slowest=f"{served.slowest * 1000:.0f} ms",
    )


def load(clients: int = 100, minutes: float = 10) -> Figures:
    """Read with many clients."""
    with bench() as imgfs:
        found = mount_drills.load(imgfs, clients, minutes * 60)
    assert found.memory[1] - found.memory[0] < 30_000
    return Figures(
        f"{clients} clients, {minutes:g} minutes, {found.operations:,} operations; "
        f"descriptors {found.descriptors[0]} to {found.descriptors[1]}",
        f"{found.verified / 1e9:,.1f} GB",
        f"{found.slowest * 1000:,.0f} ms",
        f"{found.memory[0] / 1024:.1f} to {found.memory[1] / 1024:.1f} MiB",
    )


def mounts(loops: int = 200, at_once: int = 50) -> Figures:
    """Mount again and again, and many at once."""
    with bench() as imgfs:
        took = mount_drills.mounts(imgfs, loops, at_once)
        mount_drills.unmount_busy(imgfs, rounds=20)
    return Figures(
        f"{loops} mounts in a loop ({took['loop']:.0f} s), {at_once} at once ({took['at once']:.0f} s), 20 busy"
    )


def members(count: int = 10_000_000) -> Figures:
    """List a layer of very many members."""
    with bench() as imgfs:
        found = member_drills.members(imgfs, count)
    assert found.peak < 60_000_000 + 200 * count
    return Figures(
        f"{count:,} members: first look {found.first_look:.0f} s, listing {found.listing:.0f} s",
        memory=f"{found.peak / 1e6:,.0f} MB",
    )


def peers(stacks: int = 2_000, seed: int = 0) -> Figures:
    """Compare random stacks of layers with what other programs unpack of them."""
    with bench() as imgfs, all_unpackers() as unpackers:
        imgfs.log_is_quiet = False
        found = peer_drill.compare(imgfs, unpackers, stacks, seed=seed)
    for title, counter in (("members", found.members), ("refused by", found.refusals), ("imgfs", found.verdicts)):
        print(f"{title}: {', '.join(f'{count:,} {name}' for name, count in counter.most_common())}")
    for fault in found.faults:
        print(fault)
    assert not found.faults
    return Figures(
        f"{found.stacks:,} stacks from seed {seed} on, {found.members.total():,} members, unpacked by {len(unpackers)} "
        f"peers; these differ in {found.disputed:,}, nothing unexplained",
        f"{found.mounted} through a mount",
    )


def hostile() -> Figures:
    """Run the command in hostile surroundings."""
    reports = []
    for kind, cases in KINDS.items():
        with bench() as imgfs:
            reports.append(hostile_drill.drill(imgfs, kind, cases()))
    print(hostile_drill.HEAD, *(report.row() for report in reports), sep="\n", flush=True)
    faults = [fault for report in reports for fault in report.faults]
    assert not faults
    right, count = sum(report.right for report in reports), sum(len(report.outcomes) for report in reports)
    return Figures(
        f"{count} cases: {right} right, {count - right} refused with one line",
        memory=f"{max(report.peak for report in reports) / 1e6:.0f} MB",
    )


def catalog(minutes: float = 10) -> Figures:
    """Let images of an engine come, go and move while programs look into them."""
    with bench() as imgfs:
        imgfs.log_is_quiet = False
        seed = time.time_ns()
        print(f"seed {seed}", flush=True)
        found = catalog_drill.come_and_go(imgfs, minutes * 60, seed)
    grown, more = found.memory[1] - found.memory[0], found.descriptors[1] - found.descriptors[0]
    assert grown < 10_000, found
    assert more < 60, found
    done = f"{found.changes:,} changes, {found.reads:,} reads, {found.missing:,} of names that were gone"
    return Figures(done, memory=f"{grown} KiB more")


def imports(images: int = 500, at_once: int = 50) -> Figures:
    """Import images into a real dockerd, list all of them as directories, and look into some at the same time."""
    with bench() as imgfs:
        took, found = many_at_once.look_at_imported(imgfs, images, at_once)
    print(f"imports: {took:.0f} s; ls -l: {found.listing:.2f} s, {found.lists} requests, {found.saves_for_names} saves")
    assert found.lists <= 1 + found.listing // 2
    assert (found.saves_for_names, found.saves) == (0, at_once)
    assert found.resident < 50_000
    assert found.unfair <= 3, found.opened
    mean = sum(found.opened) / at_once
    done = f"{images} images, ls -l {found.listing:.2f} s; {at_once} opened at once, {mean:.2f} s each in the mean"
    return Figures(done, slowest=f"{max(found.opened):.2f} s", memory=f"{found.resident / 1000:.0f} MB")


def registry(faults: int = 10_000, minutes: float = 10, rounds: int = 10) -> Figures:
    """Read from a registry that fails, is gone, and whose tokens and signed URLs expire."""
    seed = time.time_ns()
    print(f"seed {seed}", flush=True)
    counts = registry_drills.commit_faults(faults, seed)
    print(", ".join(f"{count:,} {name}" for name, count in counts.most_common()), flush=True)
    outages = []
    for _ in range(rounds):
        with bench() as imgfs:
            outages.append(registry_drills.outage(imgfs))
    late, others = max(found.errors[1] for found in outages), max(found.others for found in outages)
    back, unmounted = max(found.back for found in outages), max(found.unmounted for found in outages)
    print(
        f"{rounds} outages with --timeout 2: reads end after {late:.2f} s, other requests take {others * 1000:.1f} ms, "
        f"reads succeed {back:.1f} s after the end, unmounted after {unmounted:.2f} s",
        flush=True,
    )
    with bench() as imgfs, bench() as other, registry_drills.idle(other) as proxy:
        blobs = max(64, int(minutes * 120))
        found = registry_drills.expire(imgfs, seconds=minutes * 60, token=60, url=20, blobs=blobs, stated=60)
        assert proxy.requests() == []
    assert found.expired == 0
    return Figures(
        f"{counts.total():,} faults of {len(counts)} kinds; {rounds} outages, names in {others * 1000:.1f} ms, back "
        f"after {back:.1f} s, unmounted in {unmounted:.1f} s; tokens of 60 s and URLs of 20 s for {minutes:g} minutes: "
        f"{found.reads:,} reads, {found.tokens} tokens; meanwhile no request of an idle mount",
        "all",
        f"{late:.1f} s with --timeout 2",
    )


def fuzz_random(minutes: float = 2) -> Figures:
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
    return Figures(
        f"{count:,} stacks of layers from seed {seed} on, {accepted:,} layers accepted", memory=f"{more:,} KiB more"
    )


def erofs(images: int = 10_000) -> Figures:
    """Compare random layers with their EROFS metadata; one in 100 images is mounted and checked by fsck.erofs."""
    logging.disable()
    seed = time.time_ns()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = erofs_drill.compare(images, seed, fsck=fsck_erofs())
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    counts = ", ".join(f"{count:,} {name}" for name, count in found.images.most_common())
    return Figures(
        f"{images:,} images from seed {seed} on: {counts}", f"{found.paths:,} paths", memory=f"{more:,} KiB more"
    )


def takeover(rounds: int = 200) -> Figures:
    """Kill, stop or unmount at random moments while the kernel takes over from FUSE; half with loop devices."""
    found: Counter[str] = Counter()
    for loop_devices in (False, True):
        with bench() as imgfs:
            imgfs.log_is_quiet = False
            seed = time.time_ns()
            print(f"seed {seed}", flush=True)
            memory = imgfs.mountpoint("memory") if loop_devices else None
            found += take_over_drill.drill(imgfs, rounds // 2, seed, memory)
    for case, count in sorted(found.items()):
        print(f"{case}: {count}")
    return Figures(f"{found.total()} take-overs", "all that is mounted afterwards")


def changed(files: int = 1000) -> Figures:
    """Truncate and overwrite a file that the kernel reads a mount from; no driver mounts that."""
    rows = [row for backing in Backing for row in changed_devices.drill(files, backing)]
    print(changed_devices.HEAD, *(row.line() for row in rows), sep="\n", flush=True)
    return Figures(f"{len(rows)} cases of {files:,} files")


DRILLS: dict[str, Callable[..., Figures]] = {
    "fuzz": fuzz,
    "random": fuzz_random,
    "erofs": erofs,
    "peers": peers,
    "kill": kill,
    "engine": engine,
    "waiting": waiting,
    "registry": registry,
    "mounts": mounts,
    "members": members,
    "load": load,
    "hostile": hostile,
    "catalog": catalog,
    "imports": imports,
    "changed": changed,
    "takeover": takeover,
}


def run(names: list[str], numbers: list[float]) -> int:
    """Run drills one after the other, and print the table; return 1 if one has failed."""
    lines, failed = [], False
    for name in names:
        print(f"soak: {name}", flush=True)
        began = time.monotonic()
        try:
            figures, left = DRILLS[name](*numbers), "0"
        except Exception as error:  # noqa: BLE001 - the other drills are run all the same
            traceback.print_exc()
            figures, left, failed = Figures(f"FAILED: {type(error).__name__}"), "?", True
        cells = (f"`scripts/soak {name}`", f"{time.monotonic() - began:.0f} s", *figures, left)
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    print(
        "\n| command | time | done | compared | slowest read | memory | left |",
        "|---|---|---|---|---|---|---|",
        sep="\n",
    )
    print(*lines, sep="\n")
    return int(failed)


if __name__ == "__main__":
    os.environ.pop("PYTHONPATH", None)  # of this process alone: imgfs starts as it does for users
    chosen, *words = sys.argv[1:] or ["all"]
    if chosen not in (*DRILLS, "all"):
        sys.exit(f"usage: scripts/soak [{'|'.join(DRILLS)} [NUMBERS]]")
    parsed = [float(word) if "." in word else int(word) for word in words]
    sys.exit(run(list(DRILLS), []) if chosen == "all" else run([chosen], parsed))
