"""What a copy consists of."""

from dataclasses import dataclass

from fusefs.text import printable


@dataclass
class Copied:
    """The numbers of what was copied."""

    path: str
    """Where the copy is; empty for a tar."""
    files: int = 0
    """Regular files, each name of one counted."""
    directories: int = 0
    links: int = 0
    """Symbolic links."""
    others: int = 0
    """Devices, fifos and sockets."""
    size: int = 0
    """Bytes that were written."""
    skipped: int = 0
    """Files that cannot be made: devices, unless root makes them; in a tar, sockets."""
    why_skipped: str = ""
    """The first of them, with the reason."""

    def __bool__(self) -> bool:
        return any((self.files, self.directories, self.links, self.others))

    def skip(self, path: bytes, why: str) -> None:
        """Count a file that is not copied."""
        self.why_skipped = self.why_skipped or f"{printable(path)}: {why}"
        self.skipped += 1
