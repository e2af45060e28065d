"""Steps of an image's history, as a Dockerfile has them."""

import re

from fusefs.oci.config import Step
from fusefs.text import printable

_NO_COMMAND = re.compile(r"^/bin/sh -c #\(nop\) *")
_RUN = re.compile(r"^(?:RUN )?(?:\|[0-9]+ .*?)?/bin/sh -c ")
"""Docker's classic builder omits ``RUN``; arguments of the build (``|1 A=b``) stand before the shell."""
_HASH = re.compile(r"\b((?:file|dir|multi):[0-9a-f]{8})[0-9a-f]{56}\b")
"""What the classic builder copies."""
_BUILDKIT = re.compile(r" *# buildkit$")


def instruction(step: Step | None, *, short: bool = False) -> str:
    """Return the instruction of a *step* in one printable line, empty if none is known.

    What builders add is left out: ``/bin/sh -c #(nop) CMD ["nginx"]`` is ``CMD ["nginx"]``.  *short*: for a terminal,
    with eight digits of a hash.
    """
    if step is None:
        return ""
    text = _BUILDKIT.sub("", " ".join((step.created_by or step.comment).split()))
    plain = _NO_COMMAND.sub("", text)
    text = _RUN.sub("RUN ", text) if plain == text else plain
    return printable(_HASH.sub(r"\1…", text) if short else text)
