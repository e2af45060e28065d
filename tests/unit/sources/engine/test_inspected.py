"""An engine's description of an image."""

from typing import Any

import pytest

from fusefs.oci.digest import DiffID, Digest
from fusefs.oci.platform import Platform
from fusefs.sources.engine.inspected import NONSENSE, Inspected, parse_inspected

ID = Digest("sha256", "1" * 64)
ANSWER: dict[str, Any] = {
    "Id": str(ID),
    "RepoTags": ["a:1"],
    "Size": 5,
    "RootFS": {"Layers": [str(ID)]},
    "RepoDigests": ["a@sha256:1"],
    "Os": "linux",
    "Architecture": "arm64",
    "Variant": "v8",
    "GraphDriver": {"Name": "overlay2"},
}
DESCRIBED = Inspected(ID, ("a:1",), 5, (DiffID(ID),), Platform("linux", "arm64", "v8"), ("a@sha256:1",), "overlay2")


def test_names_of_fields_count_in_any_case_as_in_go() -> None:
    assert parse_inspected(ANSWER) == DESCRIBED._replace(answer=ANSWER)
    upper = {key.upper(): value for key, value in ANSWER.items()}
    upper |= {"ROOTFS": {"layers": [str(ID)]}, "GRAPHDRIVER": {"name": "overlay2"}}
    assert parse_inspected(upper) == DESCRIBED._replace(answer=upper)


@pytest.mark.parametrize("missing", ["Id", "Size", "RootFS"])
def test_a_description_without_its_parts_is_nonsense(missing: str) -> None:
    with pytest.raises(NONSENSE):
        parse_inspected({key: value for key, value in ANSWER.items() if key != missing})


@pytest.mark.parametrize("size", [1 << 63, 10**4000, float("inf"), -float("inf"), "9" * 5000], ids=range(5))
def test_a_size_that_go_cannot_hold_is_nonsense(size: object) -> None:
    with pytest.raises(NONSENSE):
        parse_inspected(ANSWER | {"Size": size})


@pytest.mark.parametrize(
    ("size", "counted"), [((1 << 63) - 1, (1 << 63) - 1), (0, 0), (-1, 0), (-(10**4000), 0)], ids=range(4)
)
def test_any_other_size_counts_a_negative_one_as_none(size: int, counted: int) -> None:
    assert parse_inspected(ANSWER | {"Size": size}).size == counted
