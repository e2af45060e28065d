"""The command: picks cases, runs them, writes what they gave."""

import argparse
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks import blobs, engine_files, kernel, mounting, trees, unpacking
from benchmarks.bench import CASES, Bench, Case
from benchmarks.inputs import Inputs
from benchmarks.plot import CASE, draw
from benchmarks.report import terminal, write_markdown
from benchmarks.results import Row
from benchmarks.tools import Tools, machine, versions
from benchmarks.workplace import Failed, Workplace

_MODULES = (mounting, blobs, trees, unpacking, engine_files, kernel)  # imported for the cases that they enter


def _arguments() -> argparse.Namespace:
    cases = sorted(CASES.values(), key=lambda case: case.number)
    listed = "\n".join(f"  {case.name:24}{case.summary}" for case in cases)
    parser = argparse.ArgumentParser(
        "scripts/bench",
        description="Measures imgfs beside the tools that a user would pick instead.",
        epilog=f"cases (all, if none is given):\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help="which to run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the table into a Markdown file")
    parser.add_argument("--imgfs", metavar="PROGRAM", help="an installed imgfs to measure, as scripts/install makes it")
    parser.add_argument("--fuse-archive", metavar="PROGRAM", help="a built fuse-archive to compare with")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the picture of the README")
    parser.add_argument("--runs", type=int, metavar="N", help="paired runs of each case (5)")
    parser.add_argument("--quick", action="store_true", help="one run on tiny inputs: shows that it works, no more")
    parser.add_argument("--no-install", action="store_true", help="install nothing; go without what is not here")
    arguments = parser.parse_args()
    for name in arguments.cases:
        if name not in CASES:
            parser.error(f"no case {name}")
    arguments.cases = [case for case in cases if case.name in (arguments.cases or CASES)]
    arguments.runs = arguments.runs or (1 if arguments.quick else 5)
    return arguments


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _measure(bench: Bench, cases: list[Case]) -> dict[str, Any]:
    """Run the *cases*; what one of them could not do does not stop the others."""
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    for case in cases:
        if why := case.missing():
            skipped[case.name] = why
            continue
        _say(f"{case.name}: {case.summary}")
        started = time.monotonic()
        try:
            for result in case.measure(bench):
                document = {"case": case.name, "number": case.number, **result.document()}
                (rows if isinstance(result, Row) else curves).append(document)
        except (Failed, OSError, subprocess.CalledProcessError) as error:
            failed[case.name] = str(error)
            _say(f"{case.name} failed: {error}")
        else:
            _say(f"{case.name}: {time.monotonic() - started:.0f} s")
    return {"rows": rows, "curves": curves, "skipped": skipped, "failed": failed}


def _document(bench: Bench, cases: list[Case]) -> dict[str, Any]:
    return {
        "version": 1,
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "runs": bench.runs,
        "quick": bench.quick,
        "user": "root" if bench.root else "user",
        "machine": machine(),
        "versions": versions(bench.tools),
        **_measure(bench, cases),
    }


def _stop_at_signals(work: Workplace) -> None:
    """Raise KeyboardInterrupt at SIGINT, also where a shell has it ignored, and at SIGTERM."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        work.kill_servers()  # this process may wait for one that waits in a mount
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def main() -> int:
    """Run the benchmark; 0 if all that ran could be measured, whatever the targets."""
    arguments = _arguments()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imgfs-bench"
    peers = Path(os.environ.get("IMGFS_BENCH_PEERS") or cache / "venv")
    try:
        with Workplace() as work:
            _stop_at_signals(work)
            inputs = Inputs(work, cache, quick=arguments.quick)
            tools = replace(Tools.found(work, peers, arguments.fuse_archive), own=arguments.imgfs)
            document = _document(Bench(work, tools, inputs, arguments.runs, arguments.quick, _say), arguments.cases)
    except KeyboardInterrupt:
        _say("interrupted; nothing of it is left")
        return 130
    print(terminal(document))
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    if arguments.markdown:
        write_markdown(document, arguments.markdown)
    if arguments.plot and not draw(document, arguments.plot):
        _say(f"no picture: it needs the case {CASE}")
    return 1 if document["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
