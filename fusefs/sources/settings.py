"""What the user said about where images come from."""

from collections.abc import Mapping
from dataclasses import dataclass

from fusefs.platforms import Platform
from fusefs.progress import Progress


@dataclass(frozen=True, slots=True)
class Settings:
    """The options that sources heed, and whom to tell how far they are."""

    host: str | None
    context: str | None
    tmpdir: str
    """Where to spool what must be written."""
    verify: bool
    """Read a file whole and compare its digests."""
    platform: Platform | None
    """None for what suits this machine best."""
    environment: Mapping[str, str]
    progress: Progress
