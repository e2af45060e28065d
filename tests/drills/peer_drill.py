"""A drill: random stacks of layers, as imgfs shows them and as other programs unpack them."""

import posixpath
import random
from collections import Counter
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.drills.peer_stacks import Stack, described, drawn, prefixes, smaller, tars, without_each
from tests.drills.peer_votes import Files, Outcome, Outcomes, Verdict, compared, judge, shown
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
    """Return the smallest part of a stack that is a fault, and why; empty if peers refuse it for something else."""
    while less := next((less for less in smaller(stack) if _is_fault(pool, peers, less)), None):
        stack = less
    theirs, ours = outcomes(pool, peers, stack), shown(tars(stack))
    verdict = judge(theirs, ours)
    refusals = {name: outcome.message for name, outcome in theirs.items() if isinstance(outcome, Refused)}
    if isinstance(ours.outcome, Refused):
        refusals["imgfs"] = ours.outcome.message
    elif _for_another_member(pool, peers, stack, refusals, verdict):
        return ""
    strange = [f"{path!r}: imgfs {why}" for path, why in verdict.strange.items()][:6]
    return "\n  ".join(
        (described(stack), *strange, *(f"{name} refuses: {message[-150:]}" for name, message in refusals.items()))
    )


def _is_fault(pool: ThreadPoolExecutor, peers: Sequence[Unpacker], stack: Stack) -> bool:
    return judge(outcomes(pool, peers, stack), shown(tars(stack))).is_fault


def _for_another_member(
    pool: ThreadPoolExecutor, peers: Sequence[Unpacker], stack: Stack, refusals: Container[str], verdict: Verdict
) -> bool:
    """Return whether a peer that refuses *stack* agrees with imgfs once a member that is elsewhere is left out.

    Then imgfs follows one peer here and another there, and each refuses what it does not follow.
    """
    if verdict.kind == "silent":
        return len(_refused_at(pool, peers, stack)) > 1
    own, places = _files(shown(tars(stack)).outcome), {path.split(b"/")[0] for path in verdict.strange}
    for member, less in without_each(stack):
        if places & {_place(member.path), _place(member.other)}:
            continue
        mine = _files(shown(tars(less)).outcome)
        for name, outcome in outcomes(pool, peers, less).items():
            if name in refusals and isinstance(outcome, Tree):
                theirs = compared(outcome)
                if all(own.get(path) == mine.get(path) == theirs.get(path) for path in verdict.strange):
                    return True
    return False


def _place(path: str) -> bytes:
    """Return the first part of *path*."""
    return posixpath.normpath(f"/{path}").split("/")[1].encode()


def _files(outcome: Outcome) -> Files:
    return compared(outcome) if isinstance(outcome, Tree) else {}


def _refused_at(pool: ThreadPoolExecutor, peers: Sequence[Unpacker], stack: Stack) -> set[int]:
    """Return at which members of a stack, counted from the base on, a peer begins to refuse it."""
    refused: dict[str, int] = {}
    for count, part in enumerate(prefixes(stack)):
        for name, outcome in outcomes(pool, peers, part).items():
            if isinstance(outcome, Refused):
                refused.setdefault(name, count)
    return set(refused.values())
