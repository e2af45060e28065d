"""The coverage-guided fuzzer: ``python -m tests.fuzz.coverage FOLDER [OPTION…]``, libFuzzer's; see ``scripts/soak``.

FOLDER is named like the target, and holds its corpus; it begins with what is kept of others and what `fuzzing` makes.
"""

import json
import logging
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import atheris  # type: ignore[import-untyped, unused-ignore]

with atheris.instrument_imports(include=["fusefs"]):
    from tests.fuzz.oracles import TARGETS
    from tests.fuzz.random_archives import HONEST, LYING, archive

from tests.fuzz.corpora import kept
from tests.fuzz.processes import name_of
from tests.support.builders import LAYERS, Archive, image_config, schema2_manifest
from tests.support.layouts import COMPRESSED_LAYOUTS, LAYOUTS

_BEGIN = 60
"""Archives of each kind to begin with."""


def inputs() -> Iterator[tuple[int, bytes]]:
    """Yield inputs to begin with, each with the number of its target."""
    for seed in range(_BEGIN):
        rng = random.Random(seed)
        for parts in (HONEST, LYING):
            yield seed % 2, archive(rng, parts)
        yield 2 + seed % 2, rng.randbytes(200)
    documents = [image_config(LAYERS), schema2_manifest(b"{}", LAYERS), Archive().manifest_data()]
    documents.append(json.dumps({"schemaVersion": 2, "manifests": []}).encode())
    yield from ((4, document) for document in documents)
    yield 5, b"18 path=somewhere\n13 mtime=1.5\n"
    yield 6, b"2\n0\n1\n600\n2\n"
    yield from ((7, build()) for build in (*LAYOUTS.values(), *COMPRESSED_LAYOUTS.values()))
    assert len(TARGETS) == 8


def main() -> None:
    """Fuzz until libFuzzer has enough."""
    folder = Path(sys.argv[1])
    (target,) = (target for target in TARGETS if name_of(target) == folder.name)
    if not any(word.startswith("-merge") for word in sys.argv):
        begin = [data for wanted, data in inputs() if TARGETS[wanted] is target]
        for number, data in enumerate((*begin, *kept(target))):
            (folder / f"begin-{number}").write_bytes(data)
    logging.disable()
    # A merge runs the first word in a shell.
    atheris.Setup([f"{sys.executable} -m tests.fuzz.coverage", *sys.argv[1:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
