"""Names of images."""

import pytest

from fusefs.oci.reference import same_image


@pytest.mark.parametrize(
    ("asked", "name", "same"),
    [
        ("x", "docker.io/library/x:latest", True),
        ("x", "localhost/x:latest", True),
        ("x:1", "localhost/x:1", True),
        ("a/x", "localhost/a/x:latest", True),
        ("localhost/x", "x", False),
        ("docker.io/library/x", "localhost/x:latest", False),
        ("x:2", "localhost/x:1", False),
        ("x", "", False),
        ("Any Text!", "Any Text!", True),
    ],
)
def test_a_name_without_a_registry_may_be_one_of_localhost(asked: str, name: str, *, same: bool) -> None:
    assert same_image(asked, name) is same
