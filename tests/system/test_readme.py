"""Each command in the README is run as it stands there, or a file is named here that runs it."""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.engines import RealEngine
from tests.support.mounts import COMMAND, Bench
from tests.support.readme import (
    REPOSITORY,
    Step,
    blocks,
    listed_commands,
    run_in_shell,
    session,
    spans,
    stable,
)
from tests.support.real_image import NGINX, SMALL
from tests.support.requirements import ROOT, give_up, need

TUNED = "nginx:tuned"
(SESSION,) = (session(block.text) for block in blocks() if block.kind == "console")

RUN = {
    "imgfs mount": "imgfs list | grep -q /mnt/img",  # as each of these commands finds it
    "imgfs umount": "imgfs umount /mnt/img",
    "imgfs list": "imgfs list",
    "imgfs mount [options] IMAGE MOUNTPOINT": "imgfs mount --no-trees small:1 /mnt/tuned",
    "imgfs umount [-l] MOUNTPOINT…": "imgfs umount -l /mnt/img",
    "imgfs list [--json]": "imgfs list --json | jq -e '.[] | select(.mountpoint == \"/mnt/img\")'",
    "imgfs inspect [--json] IMAGE": "imgfs inspect --json small:1 | jq -e .layers[0]",
    "imgfs ls [-laAdhnR] IMAGE[:/PATH]": "imgfs ls -laAdhnR small:1:/",
    "imgfs cat IMAGE:/PATH": "imgfs cat small:1:/hello",
    "imgfs diff [-h] IMAGE[:/PATH] IMAGE[:/PATH]": "imgfs diff -h small:1:/ small:1:/",
    "imgfs which IMAGE PATH": "imgfs which small:1 /hello",
    "imgfs cache list [--json]": "imgfs cache list --json | jq -e",
    "imgfs cache prune [--all]": "imgfs cache prune --all",
    "imgfs cache path": "imgfs cache path",
    "imgfs --version": "imgfs --version",
    "imgfs [COMMAND] --help": "imgfs --help && imgfs mount --help",
    "imgfs completion bash|zsh|fish": "imgfs completion bash && imgfs completion zsh && imgfs completion fish",
    "imgfs completion fish | source": "fish --no-config -c 'imgfs completion fish | source'",
    "source <(imgfs completion bash)": "source <(imgfs completion bash) && complete -p imgfs",
    "command -v imgfs": "command -v imgfs",
    "imgfs IMAGE MOUNTPOINT [options]": "imgfs small:1 /mnt/tuned -o ro",
    "umount /mnt/img": "umount /mnt/img",
    "fusermount3 -u /mnt/img": "fusermount3 -u /mnt/img",
    "grep -r": "grep -r hello /mnt/img/rootfs",
    "diff -r": "diff -r /mnt/img/rootfs /mnt/img/layers/0",
    "getfattr -d": "getfattr -d /mnt/img/manifest.json | grep user.oci.digest",
    "docker save": "docker save small:1 | tar -t",
    "docker save | tar x": "mkdir all && docker save small:1 | tar x -C all && test -e all/manifest.json",
    "docker save nginx:latest | imgfs mount - /mnt/img": (
        "imgfs umount /mnt/img && docker save nginx:latest | imgfs mount - /mnt/img"
    ),
    "docker context": "docker context ls",
    "skopeo inspect --raw": "skopeo inspect --raw oci:/mnt/img",
    "skopeo inspect oci:/mnt/img": "skopeo inspect oci:/mnt/img && skopeo inspect oci:/mnt/img:1",
    "skopeo copy oci:/mnt/img dir:…": "skopeo copy oci:/mnt/img dir:$PWD/copy",
    "skopeo copy oci:/mnt/img docker-archive:…": "skopeo copy oci:/mnt/img docker-archive:$PWD/copy.tar",
    "podman pull oci:/mnt/img": "podman pull oci:/mnt/img",
    "podman image mount": "podman image mount $(podman pull -q oci:/mnt/img)",
    "buildah from oci:/mnt/img": "buildah from oci:/mnt/img",
    "umoci stat": "umoci stat --image /mnt/img:1",
    "umoci unpack --image /mnt/img:TAG": "umoci unpack --image /mnt/img:1 bundle",
    "apt install fuse3 libfuse3-dev pkg-config gcc python3-dev": (
        "apt-get install --simulate fuse3 libfuse3-dev pkg-config gcc python3-dev"
    ),
}
"""Commands as the README has them, and what is run: the same with values for what it leaves open."""


@dataclass(frozen=True)
class Elsewhere:
    """Where a command is run that no test can run: it would install, or call itself."""

    file: str
    words: str


RUN_ELSEWHERE = {
    "scripts/test": Elsewhere(".ci/run", "exec scripts/test"),
    "scripts/setup": Elsewhere("scripts/test", "scripts/setup --dev"),
    "scripts/bench": Elsewhere("tests/system/test_bench.py", "from benchmarks.bench import"),
    "pip install .": Elsewhere("scripts/setup", "-m pip install"),
    "pipx install .": Elsewhere("scripts/setup", "-m pip install"),
    "scripts/install": Elsewhere("tests/support/namespaces.py", '"scripts" / "install"'),
    "imgfs mount --foreground": Elsewhere("systemd/imgfs@.service", "imgfs mount --foreground"),
    (
        "mount -t fuse.imgfs docker-daemon:nginx:latest /mnt/img "
        "-o ro,allow_other,platform=linux/arm64,x-systemd.automount,_netdev"
    ): Elsewhere("tests/system/mount8/test_mount8.py", '"fuse.imgfs", "imgfs"'),
    "pip install '.[ssh]'": Elsewhere("pyproject.toml", '\nssh = ["docker[ssh]"]'),
    "podman system service": Elsewhere("tests/support/engines.py", '"system", "service"'),
    "podman save": Elsewhere("tests/peers/test_producers.py", '"podman", "save"'),
}
DEMO = "scripts/demo [IMAGE]"
NO_COMMANDS = {
    "imgfs: …",
    (
        "rw dev suid exec defaults auto noauto user users owner group nofail _netdev relatime strictatime nodiratime "
        "x-* comment= norelatime nostrictatime diratime atime lazytime nolazytime sync async dirsync iversion "
        "noiversion mand nomand silent loud nouser nousers noowner nogroup _rnetdev"
    ),
}
"""What is marked as code, has a space and is neither a command nor an option."""


def test_no_command_is_unknown() -> None:
    in_session = {step.command for step in SESSION}
    assert listed_commands() - in_session == {*RUN, *RUN_ELSEWHERE, DEMO} - in_session


def test_every_block_says_what_it_is_and_what_is_marked_as_code_is_known() -> None:
    assert {block.kind for block in blocks()} <= {"console", "sh", "text"}
    assert [block for block in blocks() if block.kind == "text" and re.search(r"^\$ ", block.text, re.MULTILINE)] == []
    with_spaces = {span for span in spans() if " " in span and not span.startswith("-")}
    assert with_spaces - listed_commands() == NO_COMMANDS


def test_what_no_test_can_run_is_run_where_it_is_said_to_be() -> None:
    missing = [
        name for name, where in RUN_ELSEWHERE.items() if where.words not in (REPOSITORY / where.file).read_text()
    ]
    assert missing == []


@pytest.fixture(name="images", scope="module")
def images_of_the_session(docker_engine: RealEngine) -> Iterator[RealEngine]:
    """Give an engine that has the session's second image as well: its nginx has another number of processes."""
    need(ROOT, "unshare", "jq", "skopeo", "diff", "chroot")
    context = docker_engine.folder / "tuned"
    context.mkdir()
    docker_engine.docker("create", "--name", "for-its-files", NGINX)
    docker_engine.docker("cp", "for-its-files:/etc/nginx/nginx.conf", context)
    docker_engine.docker("rm", "for-its-files")
    conf = (context / "nginx.conf").read_text()
    (context / "nginx.conf").write_text(conf.replace("worker_processes auto;", "worker_processes 2;"))
    (context / "Dockerfile").write_text(f"FROM {NGINX}\nCOPY nginx.conf /etc/nginx/nginx.conf\n")
    subprocess.run(
        ["docker", "build", "-q", "-t", TUNED, context],
        env=docker_engine.environment | {"DOCKER_BUILDKIT": "0"},
        check=True,
        capture_output=True,
    )
    yield docker_engine
    docker_engine.docker("rmi", TUNED)


def _environment(imgfs: Bench, engine: RealEngine) -> dict[str, str]:
    path = f"{Path(COMMAND).parent}:{os.environ['PATH']}"
    store = {"CONTAINERS_STORAGE_CONF": str(imgfs.folder / "storage.conf"), "TMPDIR": str(imgfs.folder)}
    folder = imgfs.folder / "store"
    conf = f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/root"\nrunroot = "{folder}/run"\n'
    (imgfs.folder / "storage.conf").write_text(conf)
    return imgfs.environment | {"PATH": path, "DOCKER_HOST": engine.host, "LC_ALL": "C.UTF-8", **store}


def test_the_session_goes_as_it_is_recorded(imgfs: Bench, images: RealEngine) -> None:
    said = run_in_shell([step.command for step in SESSION], _environment(imgfs, images), imgfs.folder)
    found = [Step(step.command, stable(done.output)) for step, done in zip(SESSION, said, strict=True)]
    assert found == [Step(step.command, stable(step.output)) for step in SESSION]


@pytest.mark.parametrize("command", RUN.values(), ids=RUN.keys())
def test_it_runs(imgfs: Bench, images: RealEngine, command: str) -> None:
    for program in re.findall(r"podman|buildah|umoci|getfattr|apt-get", command):
        need(program)
    mounted = f"imgfs mount --log-file {imgfs.log} {SMALL} /mnt/img"
    before, done = run_in_shell([mounted, f"set -o pipefail; {command}"], _environment(imgfs, images), imgfs.folder)
    assert (before.status, done.status) == (0, 0), (before.output, done.output)


def test_the_demo_runs(imgfs: Bench) -> None:
    stamp = REPOSITORY / ".venv" / "stamp"
    if not stamp.exists() or str(REPOSITORY) not in stamp.read_text():
        give_up("needs a .venv that scripts/setup made here: else the demo would make one")
    done = subprocess.run(
        [REPOSITORY / "scripts" / "demo"], env=imgfs.environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "FAILED" in done.stdout) == (0, False), done.stderr
