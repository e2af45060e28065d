"""The clock may jump: nothing that waits, or decides how long, asks what time it is."""

import re
from pathlib import Path

import fusefs

# `created` of what is kept, and `since` of a mount: shown to people, never compared.
SHOWN = {
    "sources/engine/cached.py",
    "sources/archive/cached.py",
    "sources/registry/entry.py",
    "mount/catalog/catalog.py",
    "mount/status.py",
}
# The age of a file of another process: its time is one of day.
SHOWN |= {"cache/part.py"}
# How long ago that is, for people.
SHOWN |= {"cli/output/ages.py", "cli/commands/cache.py"}

# A date in Retry-After, of a server that does not state its own time.  It counts for an hour at most.
SHOWN |= {"sources/servers/retries.py"}


def test_the_time_of_day_is_only_written_down() -> None:
    folder = Path(fusefs.__file__).parent
    asking = re.compile(r"\btime\.time(?:_ns)?\(|\bdatetime\b.*\bnow\(|CLOCK_REALTIME")
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.py") if asking.search(path.read_text())}
    assert found <= SHOWN
