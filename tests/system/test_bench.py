"""Each case of the benchmark runs on tiny inputs and gives numbers; nothing of a run is left; no timing is judged."""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from benchmarks.bench import Sample, take_turns
from benchmarks.plot import CASE, picture
from benchmarks.results import Row, Target, human

from tests.support.erofs_mounts import need_kernel_mounts
from tests.support.processes import Mounted, marked, mounts_at, until
from tests.support.requirements import FUSE, ROOT, need

_BENCH = str(Path(__file__).parents[2] / "scripts" / "bench")
_CASES = (
    "mount-archive", "mount-scale", "blob-cold", "blob-warm", "random-4k", "find", "read-files", "index-members",
    "ls-again", "memory", "readers", "latency-while-indexing", "help", "first-file",
)  # fmt: skip
_WITH_UMOCI = "first-gzip"
_WITH_ENGINE = ("engine-first", "engine-again", "first-file-engine", "mount-kept")
_BY_KERNEL = ("kernel-find", "kernel-stat", "kernel-read-files", "kernel-blob", "mount-erofs", "erofs-write")
_CURVES = {"mount-scale": 3, "readers": 1}


class Run:
    """A run of the benchmark, marked in its environment."""

    def __init__(self, results: Path, folder: Path) -> None:
        self.results = results
        self._folder = folder
        self._mark = {"IMGFS_BENCH_TEST": str(folder)}

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start it, without installing anything."""
        command = [_BENCH, "--quick", "--no-install", "--json", self.results, *arguments]
        environment = os.environ | self._mark | {"TMPDIR": str(self._folder)}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    @property
    def mounts(self) -> list[Mounted]:
        """What it has mounted."""
        return mounts_at(self._folder)

    def nothing_left(self) -> None:
        """Assert that there is no process, mount or file of it."""
        until(lambda: not marked(f"IMGFS_BENCH_TEST={self._folder}"), "all processes have ended")
        assert self.mounts == []
        assert os.listdir(self._folder) == []


@pytest.fixture(name="run")
def marked_run(tmp_path: Path) -> Iterator[Run]:
    need(FUSE)
    folder = Path(tempfile.mkdtemp(prefix="b", dir="/var/tmp"))  # short: podman's and containerd's paths are limited
    folder.chmod(0o755)
    run = Run(tmp_path / "results.json", folder)
    yield run
    run.nothing_left()
    folder.rmdir()


def _results(run: Run, *arguments: str | Path) -> dict[str, Any]:
    process = run.start(*arguments)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    document = json.loads(run.results.read_text())
    assert isinstance(document, dict)
    return document


def _check_numbers(numbers: dict[str, Any]) -> None:
    assert set(numbers) == {"median", "min", "max", "samples"}
    assert len(numbers["samples"]) == 1
    assert numbers["median"] == numbers["min"] == numbers["max"] == numbers["samples"][0]


def _check_case(document: dict[str, Any], case: str) -> None:
    assert document["skipped"] == document["failed"] == {}
    assert {row["case"] for row in document["rows"]} == {case}
    for row in document["rows"]:
        _check_numbers(row["imgfs"])
        for numbers in filter(None, (row["peer_samples"], row["compared"])):
            _check_numbers(numbers)
        # How much a process grew is a difference, and may be nothing.
        assert row["imgfs"]["median"] > 0 or row["what"].startswith("growth")
        assert (row["holds"] is None) == (row["target"] is None or row["compared"] is None)
    assert any(row["target"] for row in document["rows"]) or case.startswith("first-file")
    assert len(document["curves"]) == _CURVES.get(case, 0)
    for curve in document["curves"]:
        assert all(point["median"] > 0 for point in curve["lines"]["imgfs"])


@pytest.mark.parametrize("case", _CASES)
def test_a_case_gives_numbers_and_leaves_nothing(run: Run, case: str) -> None:
    _check_case(_results(run, case), case)


def test_a_case_with_umoci_gives_numbers_and_leaves_nothing(run: Run) -> None:
    need("umoci")
    _check_case(_results(run, _WITH_UMOCI), _WITH_UMOCI)


@pytest.mark.parametrize("case", _BY_KERNEL)
def test_a_case_with_kernel_mounts_gives_numbers_and_leaves_nothing(run: Run, case: str) -> None:
    need(ROOT, "mkfs.ext4")
    need_kernel_mounts()
    _check_case(_results(run, case), case)


@pytest.mark.parametrize("case", _WITH_ENGINE)
def test_a_case_with_an_engine_gives_numbers_and_leaves_nothing(run: Run, case: str) -> None:
    need(ROOT, "dockerd", "docker", "containerd")
    _check_case(_results(run, case), case)


def test_results_name_the_machine_the_versions_and_the_run(run: Run) -> None:
    document = _results(run, "help")
    assert set(document) == {
        "version", "date", "runs", "quick", "user", "machine", "versions", "rows", "curves", "skipped", "failed",
    }  # fmt: skip
    assert (document["version"], document["runs"], document["quick"]) == (1, 1, True)
    assert set(document["machine"]) == {"cpu", "cores", "memory", "kernel", "system", "python", "libc"}
    assert all(document["machine"].values())
    peers = {"ratarmount", "fuse-archive", "archivemount", "skopeo", "umoci", "podman", "dockerd"}
    assert set(document["versions"]) == {"imgfs", "pyfuse3", "trio", "docker", "isal", "backports.zstd"} | peers
    assert document["versions"]["pyfuse3"]


def test_the_picture_has_a_bar_for_each_way_to_a_file_of_an_engines_image() -> None:
    rows = [
        {"case": CASE, **Row(f"first file, {which}", "s", [ours], peer, [theirs]).document()}
        for which, ours in (("first mount", 3.0), ("mounted again", 0.25))
        for peer, theirs in (("docker save | tar x", 6.0), ("skopeo & umoci", 12.0))
    ]
    document = {"rows": rows, "runs": 5, "machine": {"cores": 2}, "date": "2026-01-02T03:04:05+00:00"}
    svg = ET.fromstring(picture(document))
    texts = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[1:-1] == [
        *("imgfs: mounted again", "250 ms", "imgfs: first mount", "3.00 s"),
        *("docker save | tar x", "6.00 s", "skopeo & umoci", "12.0 s"),
    ]
    widths = [float(bar.attrib["width"]) for bar in svg.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths == sorted(widths)
    assert max(widths) < float(svg.attrib["width"])


def test_a_peer_that_is_not_installed_is_said_to_be(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGFS_BENCH_PEERS", str(tmp_path))
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("bash", "dirname", "env", "fusermount3", "umount"):
        (programs / name).symlink_to(_path_of(name))
    monkeypatch.setenv("PATH", str(programs))
    process = run.start("blob-warm", "--markdown", tmp_path / "table.md")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    (by_peer, raw) = json.loads(run.results.read_text())["rows"]
    assert (by_peer["peer"], by_peer["peer_samples"], by_peer["holds"]) == ("ratarmount", None, None)
    assert raw["compared"]["median"] > 0
    assert "|ratarmount|not installed|" in (tmp_path / "table.md").read_text()


def _path_of(program: str) -> str:
    return subprocess.run(["which", program], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(run: Run, number: signal.Signals) -> None:
    process = run.start("--runs", "1000", "random-4k")
    until(lambda: run.mounts, "something is mounted")
    process.send_signal(number)
    output, _ = process.communicate()
    assert process.returncode == 130
    assert "interrupted; nothing of it is left" in output
    assert not run.results.exists()


def test_an_unknown_case_is_named(run: Run) -> None:
    process = run.start("no-such-case")
    output, _ = process.communicate()
    assert process.returncode == 2
    assert "no case no-such-case" in output


def test_contestants_take_turns_in_changing_order() -> None:
    order = ""

    def contestant(name: str) -> Sample:
        nonlocal order
        order += name
        return {"": len(order)}

    taken = take_turns({"a": lambda: contestant("a"), "b": lambda: contestant("b")}, 3, warm_up=True)
    assert order == "abbaabba"
    assert (taken.of("a"), taken.of("b"), taken.of("not installed")) == ([4, 5, 8], [3, 6, 7], [])


def test_the_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    row = Row("what", "s", [1.0, 2.0, 9.0], "peer", [2.0, 2.0, 3.0], Target("≤", 1.0))
    assert row.compared == [0.5, 1.0, 3.0]
    assert row.holds is True
    document = row.document()
    assert document["imgfs"] == {"median": 2.0, "min": 1.0, "max": 9.0, "samples": [1.0, 2.0, 9.0]}
    assert (document["compared"]["median"], document["target"]["text"]) == (1.0, "≤ 1")


def test_a_target_may_be_about_a_difference_or_about_ours_alone() -> None:
    assert Row("", "s", [0.5, 0.75], "peer", [0.25, 0.25], Target("≤", 0.25, "difference")).compared == [0.25, 0.5]
    assert Row("", "B", [50e6], target=Target("≤", 50e6, "value")).holds is True
    assert Row("", "B", [51e6], target=Target("≤", 50e6, "value")).holds is False
    assert Row("", "s", [1.0], "peer", None, Target("≤", 1.0)).holds is None
    assert Row("", "s", [1.0], "peer", [1.0]).holds is None


def test_numbers_have_three_digits_and_a_prefix() -> None:
    numbers = [(1.234, "s"), (0.0456, "s"), (0.0000456, "s"), (123.4, "s"), (4e8, "B"), (1.5e9, "B/s"), (0.0, "s")]
    printed = ["1.23 s", "45.6 ms", "45.6 µs", "123 s", "400 MB", "1.50 GB/s", "0.00 µs"]
    assert [human(*number) for number in numbers] == printed
    assert human(1.186, "") == "1.19"
