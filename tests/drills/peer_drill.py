"""A drill: random stacks of layers, as imgfs shows them and as other programs unpack them."""

import posixpath
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.drills.peer_stacks import Stack, described, drawn, places, smaller, tars, up_to, without
from tests.drills.peer_votes import Files, Outcomes, Verdict, compared, judge, shown
from tests.peers.unpackers import Refused, Unpacker
from tests.peers.whole_trees import Tree, differences, tree_at
from tests.support.builders import Archive
from tests.support.mounts import Bench


@dataclass
class Figures:
    """What a drill came to."""

    stacks: int = 0
    mounted: int = 0
    members: Counter[str] = field(default_factory=Counter)
    disputed: int = 0
    """Stacks that not all peers unpack alike."""
    refusals: Counter[str] = field(default_factory=Counter)
    """Refused stacks, by peer."""
    verdicts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    """Each with its seed, and the smallest stack that shows it."""


def compare(imgfs: Bench, peers: Sequence[Unpacker], stacks: int, *, seed: int = 0, every: int = 50) -> Figures:
    """Compare *stacks* random stacks, the first of *seed*; one of *every* so many is mounted as well."""
    figures = Figures()
    with ThreadPoolExecutor(len(peers)) as pool:
        for number in range(seed, seed + stacks):
            stack = drawn(random.Random(number))
            theirs, ours = outcomes(pool, peers, stack), shown(tars(stack))
            verdict = judge(theirs, ours)
            _count(figures, stack, theirs, verdict)
            if verdict.is_fault and (why := explained(pool, peers, stack)):
                figures.faults.append(f"seed {number}: {why}")
            if number % every == 0 and isinstance(ours.outcome, Tree):
                check_mounted(imgfs, tars(stack), ours.outcome)
                figures.mounted += 1
    return figures


def check_mounted(imgfs: Bench, layers: Sequence[bytes], tree: Tree) -> None:
    """Check that a mount of *layers* shows *tree* as ``rootfs``."""
    archive = Archive(layers=layers).write(imgfs.folder / "stack.tar")
    mountpoint = imgfs.mount(archive, at=imgfs.mountpoint("stack"))
    mounted = tree_at(mountpoint / "rootfs")
    assert imgfs.run("umount", mountpoint).status == 0
    mountpoint.rmdir()
    assert differences(mounted.entries, tree.entries) == {}
    assert mounted.same == tree.same


def outcomes(pool: ThreadPoolExecutor, peers: Sequence[Unpacker], stack: Stack) -> Outcomes:
    """Return what each peer makes of a stack."""
    layers = tars(stack)
    return dict(zip((peer.name for peer in peers), pool.map(lambda peer: peer.unpack(layers), peers), strict=True))


def _count(figures: Figures, stack: Stack, theirs: Outcomes, verdict: Verdict) -> None:
    figures.stacks += 1
    figures.members.update(member.kind for layer in stack for member in layer)
    figures.refusals.update(name for name, outcome in theirs.items() if isinstance(outcome, Refused))
    trees = [None if isinstance(outcome, Refused) else compared(outcome) for outcome in theirs.values()]
    figures.disputed += any(tree != trees[0] for tree in trees)
    figures.verdicts[verdict.kind] += 1


def explained(pool: ThreadPoolExecutor, peers: Sequence[Unpacker], stack: Stack) -> str:
    """Return the smallest part of a stack that is a fault, and why; empty if it only combines what peers do."""
    while less := next((less for less in smaller(stack) if _is_fault(pool, peers, less)), None):
        stack = less
    theirs, ours = outcomes(pool, peers, stack), shown(tars(stack))
    verdict = judge(theirs, ours)
    refusing = [peer for peer in peers if isinstance(theirs[peer.name], Refused)]
    if isinstance(ours.outcome, Tree) and _combines(refusing, stack, compared(ours.outcome), verdict):
        return ""
    votes = {**theirs, "imgfs": ours.outcome}
    strange = [f"{path!r}: imgfs {why}" for path, why in verdict.strange.items()][:6]
    refusals = [f"{name} refuses: {vote.message[-150:]}" for name, vote in votes.items() if isinstance(vote, Refused)]
    return "\n  ".join((described(stack), *strange, *refusals))


def _is_fault(pool: ThreadPoolExecutor, peers: Sequence[Unpacker], stack: Stack) -> bool:
    return judge(outcomes(pool, peers, stack), shown(tars(stack))).is_fault


_REASONS = ("no such file or directory", "not a directory", "file exists", "not permitted", "too many l", "duplicates")
"""What messages of peers say of the reason for which they refuse a stack."""


def _reason(peer: Unpacker, stack: Stack) -> tuple[tuple[int, int] | None, str]:
    """Return which member a peer refuses first, and why."""
    place, outcome = _refused_at(peer, stack), peer.unpack(tars(stack))
    message = outcome.message if isinstance(outcome, Refused) else ""
    return place, next((reason for reason in _REASONS if reason in message), "")


def _combines(refusing: Sequence[Unpacker], stack: Stack, own: Files, verdict: Verdict) -> bool:
    """Return whether imgfs follows one peer here and another there, and each refuses what it does not follow.

    So it is if peers refuse different members, or one for different reasons; and if a peer agrees once the members that
    it refuses are left out.
    """
    if verdict.kind == "silent" and len({_reason(peer, stack) for peer in refusing}) > 1:
        return True
    return any(_agrees_without_refused(peer, stack, own, verdict.strange) for peer in refusing)


def _agrees_without_refused(peer: Unpacker, stack: Stack, own: Files, strange: Iterable[bytes]) -> bool:
    """Return whether a peer agrees once the members that it refuses are left out, but for what these make."""
    made: set[bytes] = set()
    while place := _refused_at(peer, stack):
        path = posixpath.normpath("/" + stack[place[0]][place[1]].path)[1:].encode()
        made |= {path[:at] for at in range(len(path)) if path[at : at + 1] == b"/"} | {path}
        stack = without(stack, *place)
    theirs, ours = peer.unpack(tars(stack)), shown(tars(stack)).outcome
    if isinstance(theirs, Refused) or isinstance(ours, Refused):
        return False
    files, less = compared(theirs), compared(ours)
    if files == own:  # what it refuses has no effect in imgfs
        return True
    others = [path for path in strange if path not in made or path in less]
    return others != [] and all(own.get(path) == less.get(path) == files.get(path) for path in others)


def _refused_at(peer: Unpacker, stack: Stack) -> tuple[int, int] | None:
    """Return the place of the first member that a peer refuses, None if it takes all of them."""
    parts = (place for place in places(stack) if isinstance(peer.unpack(tars(up_to(stack, *place))), Refused))
    return next(parts, None)
