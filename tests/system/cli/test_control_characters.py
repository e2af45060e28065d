"""Names, tags, history, labels and paths with control characters: none reaches a terminal or a log."""

import os
import re
from pathlib import Path

import pytest

from tests.support.builders import Archive, image_config, layer
from tests.support.changesets import changeset, file, symlink
from tests.support.hostile_image import BASE, CONFIG, HOSTILE, UPPER
from tests.support.mounts import Bench
from tests.support.requirements import FUSE, ROOT, need
from tests.support.terminals import Terminal

OURS = re.compile(r"\x1b\[[0-9;]*m|\x1b\[K|[\r\n]")
"""Colours, the erasing of a line, and the ends of lines: all that imgfs itself sends."""
NAMES = changeset(file(f"etc/{HOSTILE}", b"\x1b[31m\x9b"), symlink(f"{HOSTILE}-link", HOSTILE))
IMAGE = Archive(
    layers=[BASE, UPPER, NAMES],
    layer_names=[f"{number}{HOSTILE}" for number in range(3)],
    config=image_config(
        [BASE, UPPER, NAMES], history=[{"created_by": HOSTILE}] * 3, config={"Labels": {HOSTILE: HOSTILE}}
    ),
    tags=[f"a:{HOSTILE}"],
)
OTHER = Archive(layers=[BASE, UPPER], config=CONFIG)


@pytest.fixture(name="image")
def hostile_image(imgfs: Bench) -> Path:
    need(FUSE, ROOT)
    return IMAGE.write(imgfs.folder / f"image{HOSTILE}.tar")


def _sees(imgfs: Bench, *words: str | Path) -> int:
    """Run a command on a terminal; return its status, nothing raw having come."""
    terminal = Terminal(imgfs, *words)
    status = terminal.end()
    rest = OURS.sub("", terminal.seen)
    assert rest
    assert [char for char in rest if not char.isprintable()] == []
    return status


def test_no_look_sends_them(imgfs: Bench, image: Path) -> None:
    other = OTHER.write(imgfs.folder / "other.tar")
    for words in (
        ["inspect", image], ["inspect", "--no-trunc", image], ["inspect", "--json", image],
        ["ls", "-laR", image], ["ls", "--json", "-R", image], ["ls", f"{image}:/etc/{HOSTILE}"],
        ["cat", f"{image}:/etc/{HOSTILE}"],
        ["diff", other, image], ["diff", "--json", "-u", "--packages", "--config", other, image],
        ["diff", "-u", other, image], ["diff", "--stat", other, image], ["diff", "--layer", "0", image],
        ["diff", "--packages", other, image],
        ["which", image, f"/etc/{HOSTILE}"], ["which", "--json", image, f"/etc/{HOSTILE}"],
        ["which", image, "/etc"], ["du", "-a", image], ["du", "--layers", image, f"/etc/{HOSTILE}"],
        ["du", "--json", "-a", image], ["find", image], ["find", "--all-layers", image], ["find", "--json", image],
        ["waste", image], ["waste", "--json", image], ["report", "--json", image],
        ["cp", f"{image}:/etc/{HOSTILE}", imgfs.folder], ["cp", "--json", f"{image}:/etc/{HOSTILE}", imgfs.folder],
        ["cache", "list"], ["cache", "list", "--wide"], ["cache", "list", "--json"],
    ):  # fmt: skip
        assert _sees(imgfs, *words) == 0, words


def test_no_error_sends_them(imgfs: Bench, image: Path) -> None:
    for status, words in (
        (4, ["ls", f"{image}:/{HOSTILE}/no"]),
        (4, ["cat", f"{image}:/{HOSTILE}"]),
        (4, ["which", image, f"/{HOSTILE}/no"]),
        (4, ["ls", f"docker-archive:{image}:no"]),
        (4, ["inspect", f"{imgfs.folder}/{HOSTILE}.tar"]),
        (2, ["inspect", f"{HOSTILE}"]),
        (2, [HOSTILE]),
        (2, [HOSTILE, "x"]),
        (2, ["find", image, "-name", "x", f"-{HOSTILE}"]),
        (2, ["find", image, "-size", HOSTILE]),
        (4, ["find", image, HOSTILE]),
        (4, ["du", image, HOSTILE]),
        (4, ["cache", "rm", HOSTILE]),
        (2, ["ls", f"--{HOSTILE}", image]),
        (9, ["mount", image, imgfs.folder / HOSTILE]),
        (9, ["umount", imgfs.folder / HOSTILE]),
    ):
        assert _sees(imgfs, *words) == status, words


def test_no_mount_sends_or_logs_them(imgfs: Bench, image: Path) -> None:
    broken = Archive(layers=[layer({"a": b""})[:512] + b"\x07" * 1024], layer_names=[HOSTILE])
    imgfs.log_is_quiet = False
    mountpoints = [imgfs.mountpoint(f"{number}{HOSTILE}") for number in range(2)]
    for path, mountpoint in zip((image, broken.write(imgfs.folder / f"broken{HOSTILE}.tar")), mountpoints, strict=True):
        assert _sees(imgfs, "mount", "-v", "--log-file", imgfs.log, path, mountpoint) == 0
    assert (mountpoints[0] / "rootfs" / "etc" / HOSTILE).exists()
    with pytest.raises(OSError, match="Input/output error"):
        os.listdir(mountpoints[1] / "rootfs")
    assert _sees(imgfs, "list") == 0
    assert _sees(imgfs, "list", "--json") == 0
    assert [char for line in imgfs.log.read_text().splitlines() for char in line if not char.isprintable()] == []
