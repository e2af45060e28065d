"""Inputs that a fuzzer found worth keeping, in the repository: ``python -m tests.fuzz.corpora`` keeps what is new."""

import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.oracles import TARGETS
from tests.fuzz.processes import Target, longest, name_of

_FOLDER = Path(__file__).with_name("corpus")


def kept(target: Target) -> Iterator[bytes]:
    """Yield the inputs of *target*, none if nothing is kept yet."""
    if not _path(target).exists():
        return
    with tarfile.open(_path(target)) as corpus:
        for member in corpus:
            file = corpus.extractfile(member)
            assert file is not None
            yield file.read()


def keep(python: Path, folder: Path) -> None:
    """Keep of each corpus in *folder*, and of what was kept, the shortest inputs that reach all that they reach."""
    _FOLDER.mkdir(exist_ok=True)
    for target in TARGETS:
        with tempfile.TemporaryDirectory() as work:
            merged, before = Path(work, name_of(target)), Path(work, "kept")
            merged.mkdir()
            before.mkdir()
            for number, data in enumerate(kept(target)):
                (before / str(number)).write_bytes(data)
            command: list[str | Path] = [python, "-m", "tests.fuzz.coverage"]
            command += [merged, before, folder / "corpus" / name_of(target)]
            command += ["-merge=1", f"-max_len={longest(target)}", "-timeout=10"]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
            inputs = sorted((path.read_bytes() for path in merged.iterdir()), key=lambda data: (len(data), data))
        with tarfile.open(_path(target), "w:xz", preset=9) as corpus:
            for number, data in enumerate(inputs):
                member = tarfile.TarInfo(f"{number:04}")
                member.size = len(data)
                corpus.addfile(member, io.BytesIO(data))
        print(f"{name_of(target)}: {len(inputs)} inputs, {_path(target).stat().st_size:,} bytes", flush=True)


def _path(target: Target) -> Path:
    return _FOLDER / f"{name_of(target)}.tar.xz"


if __name__ == "__main__":
    fuzzed = Path(os.environ["IMGFS_FUZZ"])
    keep(fuzzed / "venv/bin/python", fuzzed)
