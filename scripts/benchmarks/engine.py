"""A Docker Engine of our own, with storage of its own, and the image in it."""

import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.inputs import NAME, Image
from benchmarks.workplace import Failed, Workplace

_READY = 60.0


@dataclass(frozen=True)
class Engine:
    """A running dockerd; the workplace ends it."""

    work: Workplace
    socket: Path

    @classmethod
    def started(cls, work: Workplace, image: Image) -> "Engine":
        """Start one and load *image* into it; raises Failed."""
        folder = work.new_folder("e")  # short: containerd's sockets lie far below it
        settings = folder / "daemon.json"
        settings.write_text("{}")
        engine = cls(work, folder / "docker.sock")
        process = work.start(
            [
                "env", f"TMPDIR={folder}",  # a containerd that is slow to end writes its stacks there
                "dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", f"--config-file={settings}",
                f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid",
                "-H", engine.host,
            ]
        )  # fmt: skip
        engine._wait(process)
        engine.docker("load", "--input", image.path)
        return engine

    @property
    def host(self) -> str:
        """Where it listens, as in ``--host``."""
        return f"unix://{self.socket}"

    def docker(self, *arguments: str | Path) -> None:
        """Run the client."""
        self.work.run(["docker", "-H", self.host, *arguments])

    def save(self) -> None:
        """Save the image with the client, into a file that is then removed."""
        path = self.work.new_path("saved.tar")
        self.docker("save", "-o", path, NAME)
        path.unlink()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _READY
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"dockerd does not start: {(self.work.folder / 'log').read_text()[-1000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self.socket))
                client.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return client.recv(12).endswith(b" 200")
            except OSError:
                return False
