"""The measurement of the first byte works, and the requests and bytes are within their limits; times are for soak."""

import random

import pytest

from tests.drills.first_byte import measure, work_folder
from tests.support.changesets import changeset, file, folder
from tests.support.chunked_layers import estargz, zstd_chunked
from tests.support.lazy_images import of_layers
from tests.support.requirements import FUSE, need


@pytest.mark.parametrize(("write", "share"), [(zstd_chunked, 0.02), (estargz, 0.04)])
def test_the_first_byte_takes_four_requests_and_few_bytes(write: object, share: float) -> None:
    need(FUSE)
    rng = random.Random(1)
    base = changeset(*(file(f"lib/{number}", rng.randbytes(800_000)) for number in range(3)))
    top = changeset(folder("app/"), file("app/config", b"x"), file("app/other", rng.randbytes(2000)))
    with work_folder() as work:
        layout = of_layers(write(base), write(top))  # type: ignore[operator]
        found = measure(layout, work, ("app/config", "app/other"), runs=1)
    assert found.first.requests <= 4
    assert found.first.sent < share * found.total
    assert found.second.requests <= 1
