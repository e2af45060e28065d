"""A scanner reads the root file system in place, and finds the packages that imgfs finds."""

import json
import os
import subprocess

from fusefs import open_image
from tests.support.builders import Archive
from tests.support.environments import QUIET_SYFT, syft_program
from tests.support.mounts import Bench
from tests.support.real_image import root_file_system


def test_syft_and_imgfs_find_the_same_packages_of_debian(imgfs: Bench) -> None:
    archive = Archive([root_file_system().read_bytes()]).write(imgfs.folder / "image.tar")
    mountpoint = imgfs.mount(archive)
    command = [str(syft_program()), "-q", "-o", "json", f"dir:{mountpoint}/rootfs"]
    quiet = os.environ | {"HOME": str(imgfs.folder), **QUIET_SYFT}
    done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    artifacts = json.loads(done.stdout)["artifacts"]
    with open_image(str(archive)) as image:
        ours = {(package.name, package.version) for package in image.packages()}
    assert len(ours) > 100
    assert {(one["name"], one["version"]) for one in artifacts if one["type"] == "deb"} == ours
