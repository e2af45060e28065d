"""One client of a load: ``python -m tests.programs.load_client MOUNT REFERENCE SECONDS SEED`` prints its work as JSON.

Anything that is not as REFERENCE has it ends it with a traceback.
"""

import json
import mmap
import os
import random
import subprocess
import sys
import time
from pathlib import Path


class Client:
    """Does one random thing after the other."""

    def __init__(self, mount: Path, reference: Path, seed: int) -> None:
        self._mount = mount
        self._reference = reference
        self._names = [line.split("  ", 1)[1] for line in (reference / "SHA256SUMS").read_text().splitlines()]
        self._rng = random.Random(seed)
        self.operations = 0
        self.verified = 0
        self.slowest = 0.0

    def go_on(self, seconds: float) -> None:
        """Go on for so long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            weights = (60, 15, 20, 2, 1)
            (act,) = self._rng.choices((self._read, self._map, self._whole, self._find, self._hash), weights)
            act()
            self.operations += 1

    def _pair(self) -> tuple[str, str]:
        name = self._rng.choice(self._names)
        return os.path.join(self._mount, name), os.path.join(self._reference, name)

    def _read(self) -> None:
        """Read ranges of a file, past its end too, half of them not from the page cache."""
        path, right = self._pair()
        with open(path, "rb", buffering=0) as file, open(right, "rb", buffering=0) as same:
            size = os.fstat(same.fileno()).st_size
            for _ in range(8):
                offset, count = self._rng.randint(0, size), self._rng.choice((1, 100, 4096, 65536, 200_000))
                if self._rng.randint(0, 1):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                began = time.monotonic()
                data = os.pread(file.fileno(), count, offset)
                self.slowest = max(self.slowest, time.monotonic() - began)
                assert data == os.pread(same.fileno(), count, offset), (path, offset, count)
                self.verified += len(data)

    def _map(self) -> None:
        path, right = self._pair()
        size = os.path.getsize(right)
        if not size:
            return
        with (
            open(path, "rb") as file,
            open(right, "rb") as same,
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
        ):
            for _ in range(4):
                offset = self._rng.randrange(size)
                data = mapped[offset : offset + 10_000]
                assert data == os.pread(same.fileno(), 10_000, offset), (path, offset)
                self.verified += len(data)

    def _whole(self) -> None:
        path, right = self._pair()
        data = Path(path).read_bytes()
        assert data == Path(right).read_bytes(), path
        self.verified += len(data)

    def _find(self) -> None:
        folder = self._rng.choice(("rootfs", "layers", "blobs"))
        found = subprocess.run(
            ["find", folder, "-type", "f", "-printf", "%p\n"],
            cwd=self._mount,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        named = {name for name in self._names if name.startswith(f"{folder}/")}
        assert named <= set(found), folder

    def _hash(self) -> None:
        """Let sha256sum compare some of the files."""
        lines = self._rng.sample((self._reference / "SHA256SUMS").read_text().splitlines(), 20)
        command = ["sha256sum", "--check", "--strict", "--quiet"]
        subprocess.run(command, input="\n".join(lines) + "\n", text=True, cwd=self._mount, check=True)
        self.verified += sum(os.path.getsize(self._reference / line.split("  ", 1)[1]) for line in lines)


def main(mount: str, reference: str, seconds: str, seed: str) -> None:
    """Be a client."""
    client = Client(Path(mount), Path(reference), int(seed))
    client.go_on(float(seconds))
    print(json.dumps({"operations": client.operations, "verified": client.verified, "slowest": client.slowest}))


if __name__ == "__main__":
    main(*sys.argv[1:])
