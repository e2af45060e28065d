"""The coverage-guided fuzzer: ``python -m tests.fuzz_coverage FOLDER [OPTION…]``, libFuzzer's; see ``scripts/soak``.

FOLDER holds the corpus; it begins with archives that `fuzzing` makes.  A crash is written into it by libFuzzer.
"""

import json
import logging
import random
import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped, unused-ignore]

with atheris.instrument_imports(include=["fusefs"]):
    from tests.fuzz_oracles import TARGETS, one_input
    from tests.fuzzing import HONEST, LYING, archive

from tests.builders import LAYERS, Archive, image_config, schema2_manifest
from tests.layouts import COMPRESSED_LAYOUTS, LAYOUTS

_BEGIN = 60
"""Archives of each kind to begin with."""


def write_corpus(folder: Path) -> None:
    """Write inputs to begin with, for each of the targets."""
    for seed in range(_BEGIN):
        rng = random.Random(seed)
        for kind, parts in (("honest", HONEST), ("lying", LYING)):
            (folder / f"{kind}-{seed}").write_bytes(bytes([seed % 2]) + archive(rng, parts))
        (folder / f"choices-{seed}").write_bytes(bytes([2 + seed % 2]) + rng.randbytes(200))
    documents = [image_config(LAYERS), schema2_manifest(b"{}", LAYERS), Archive().manifest_data()]
    documents.append(json.dumps({"schemaVersion": 2, "manifests": []}).encode())
    for number, document in enumerate(documents):
        (folder / f"document-{number}").write_bytes(bytes([4]) + document)
    (folder / "records").write_bytes(bytes([5]) + b"17 path=somewhere\n"[:16] + b"\n12 mtime=1.5\n")
    (folder / "map").write_bytes(bytes([6]) + b"2\n0\n1\n600\n2\n")
    for number, build in enumerate([*LAYOUTS.values(), *COMPRESSED_LAYOUTS.values()]):
        (folder / f"image-{number}").write_bytes(bytes([7]) + build())
    assert len(TARGETS) == 8


def main() -> None:
    """Fuzz until libFuzzer has enough."""
    folder = Path(sys.argv[1])
    write_corpus(folder)
    logging.disable()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
