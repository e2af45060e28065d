"""Names of mountpoints that imgfs makes."""

import pytest

from fusefs.mount.made_mountpoint import safe_name


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("nginx:1.27", "nginx@1.27"),
        ("docker://ghcr.io/team/app", "ghcr.io_team_app"),
        ("./x/app.tar", "app.tar"),
        ("-", "image"),
        ("https://host/x/app.tar?X-Amz-Signature=secret", "app.tar"),
        ("docker-archive:https://host/x/app.tar?key=secret", "app.tar"),
    ],
)
def test_a_name_tells_the_image_and_no_secret(image: str, name: str) -> None:
    assert safe_name(image) == name
