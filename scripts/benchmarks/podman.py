"""A store of Podman with the image in it, which it mounts without a container."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.inputs import NAME, Image
from benchmarks.workplace import Mount, Workplace


@dataclass(frozen=True)
class Podman:
    """A store in a folder of its own."""

    work: Workplace
    folder: Path

    @classmethod
    def new(cls, work: Workplace) -> "Podman":
        """Make an empty store."""
        return cls(work, work.new_folder("p"))  # podman takes no path of more than 50 characters for --runroot

    @property
    def _command(self) -> list[str]:
        folder = self.folder
        stores = [f"--root={folder}/root", f"--runroot={folder}/r", f"--tmpdir={folder}/t"]
        return ["podman", *stores, "--storage-driver=overlay", "--events-backend=none"]

    @property
    def _environment(self) -> dict[str, str]:
        return os.environ | {"TMPDIR": str(self.folder)}

    def load(self, image: Image) -> None:
        """Load *image* into the store."""
        self.work.run([*self._command, "load", "--quiet", "--input", image.path], self._environment)

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Mount]:
        """Mount the image's files, its layers merged."""
        started = time.monotonic()
        mounting = [*self._command, "image", "mount", f"localhost/{NAME}"]
        done = subprocess.run(mounting, env=self._environment, check=True, capture_output=True, text=True)
        try:
            yield Mount(Path(done.stdout.strip()), started, time.monotonic() - started)
        finally:
            self.work.run([*self._command, "image", "unmount", "--all"], self._environment)
            self.work.unmount_below(self.folder)

    def remove(self) -> None:
        """Remove the store."""
        shutil.rmtree(self.folder)
