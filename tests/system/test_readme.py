"""Each command in the README and in docs/ is run as it stands there, or a test is named here or there that runs it."""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.builders import Archive, layer
from tests.support.engines import RealEngine
from tests.support.environments import QUIET_SYFT, syft_program
from tests.support.mounts import COMMAND, Bench
from tests.support.readme import (
    DOCUMENTS,
    README,
    REPOSITORY,
    Step,
    blocks,
    is_command,
    run_in_shell,
    session,
    spans,
    stable,
)
from tests.support.real_image import NGINX, SMALL
from tests.support.requirements import ROOT, give_up, need

TUNED = "nginx:tuned"
(SESSION,) = (session(block.text) for block in blocks() if block.kind == "console")
SCRIPTS = {
    "scripts/demo": "test_readme.py",
    "scripts/test": "run",
    "scripts/setup": "test",
    "scripts/bench": "test_bench.py",
    "scripts/soak": "test_mount_drills.py",
    "scripts/install": "test_helper.py",
    "scripts/check": "test",
    "scripts/man": "test_manpage.py",
    "scripts/package": "test_packages.py",
    "scripts/lock": "test_locks.py",
}
"""The scripts, and the file that runs each (or the same code)."""

RUN = {
    "imgfs mount": "imgfs list | grep -q /mnt/img",  # as each of these commands finds it
    "imgfs umount": "imgfs umount /mnt/img",
    "imgfs list": "imgfs list",
    "imgfs IMAGE MOUNTPOINT [options]": "imgfs small:1 /mnt/tuned -o ro",
    "imgfs IMAGE MOUNTPOINT": "imgfs small:1 /mnt/tuned",
    "imgfs cat nginx /etc/passwd /etc/group": "imgfs cat nginx /etc/passwd /etc/group",
    "imgfs completion bash": "imgfs completion bash",
    "imgfs completion fish | source": "fish --no-config -c 'imgfs completion fish | source'",
    "source <(imgfs completion bash)": "source <(imgfs completion bash) && complete -p imgfs",
    "command -v imgfs": "command -v imgfs",
    "umount /mnt/img": "umount /mnt/img",
    "fusermount3 -u /mnt/img": "fusermount3 -u /mnt/img",
    "getfattr -d": "getfattr -d /mnt/img/manifest.json | grep user.oci.digest",
    "docker save": "docker save small:1 | tar -t",
    "docker context": "docker context ls",
    "docker save nginx:latest | imgfs mount - /mnt/img": (
        "imgfs umount /mnt/img && docker save nginx:latest | imgfs mount - /mnt/img"
    ),
    "skopeo inspect --raw": "skopeo inspect --raw oci:/mnt/img",
    "skopeo inspect oci:/mnt/img": "skopeo inspect oci:/mnt/img && skopeo inspect oci:/mnt/img:1",
    "skopeo copy oci:/mnt/img dir:…": "skopeo copy oci:/mnt/img dir:$PWD/copy",
    "skopeo copy oci:/mnt/img docker-archive:…": "skopeo copy oci:/mnt/img docker-archive:$PWD/copy.tar",
    "podman pull oci:/mnt/img": "podman pull oci:/mnt/img",
    "podman image mount": "podman image mount $(podman pull -q oci:/mnt/img)",
    "buildah from oci:/mnt/img": "buildah from oci:/mnt/img",
    "umoci stat": "umoci stat --image /mnt/img:1",
    "umoci unpack --image /mnt/img:TAG": "umoci unpack --image /mnt/img:1 bundle",
}
"""Commands in the prose, and what is run where small:1 is mounted: the same with values for what it leaves open."""

EXAMPLES = [*dict.fromkeys(span for span in spans(README) if re.match("imgfs [a-z]", span) and span not in RUN)]
"""Commands in the README's prose that are run as they stand, where the session's images are."""


@dataclass(frozen=True)
class Elsewhere:
    """Where a command is run that no test can run: it would install, or call itself."""

    file: str
    words: str


RUN_ELSEWHERE = {
    "imgfs list --json": Elsewhere("test_all.py", '"list", "--json"'),
    "ls nginx@1.27/rootfs": Elsewhere(
        "test_all.py", "test_each_name_is_a_directory_and_nothing_is_saved_for_their_names"
    ),
    "imgfs mount --all /mnt/images": Elsewhere("test_all.py", '"mount", "--all"'),
    "imgfs mount --all ./images/ /mnt/x": Elsewhere("test_all_of_a_folder.py", '"mount", "--all"'),
    "imgfs mount --all docker://registry.example.com/team /mnt/r": Elsewhere("test_catalog.py", '"mount", "--all"'),
    "d=$(imgfs mount nginx)": Elsewhere("test_made_mountpoints.py", "_made(user, archive)"),
    "imgfs umount nginx": Elsewhere("test_made_mountpoints.py", 'user.run("umount", archive)'),
    "imgfs mount --subdir rootfs nginx /mnt/root": Elsewhere("test_subdir.py", '"--subdir", "rootfs"'),
    "imgfs cp": Elsewhere("cli/test_cp.py", '"cp"'),
    "imgfs cp IMAGE:/PATH DEST": Elsewhere("cli/test_cp.py", '"cp"'),
    "imgfs cp nginx:/etc - | ssh host tar -x": Elsewhere("cli/test_cp.py", '"cp"'),
    "imgfs diff": Elsewhere("cli/test_differences.py", '"diff"'),
    "imgfs find": Elsewhere("cli/test_usage.py", '"find"'),
    "imgfs report": Elsewhere("cli/test_report.py", '"report"'),
    "imgfs report nginx -o report.html": Elsewhere("cli/test_report.py", '"report"'),
    "imgfs shell": Elsewhere("system/cli/test_shell.py", '"shell"'),
    "imgfs shell nginx -- COMMAND…": Elsewhere("system/cli/test_shell.py", '"shell"'),
    "imgfs diff --exit-code": Elsewhere("cli/test_differences.py", '"diff", "--exit-code"'),
    "pip install .": Elsewhere("scripts/install", "pip install"),
    "pipx install .": Elsewhere("scripts/install", "pip install"),
    "pipx install pre-commit && pre-commit install": Elsewhere(".pre-commit-config.yaml", "entry: scripts/check"),
    "pipx install '.[ssh]'": Elsewhere("test_packages.py", "pipx install"),
    "pipx install '.[s3]'": Elsewhere("test_packages.py", "[s3]'"),
    "pipx install '.[s3,ssh]'": Elsewhere("test_packages.py", "pipx install"),
    "imgfs inspect docker://NAME": Elsewhere("system/registry/test_referrers.py", '"inspect", "--json"'),
    "imgfs mount docker://NAME@DIGEST": Elsewhere("registry/test_images.py", 'imgfs.mount(f"{image}@{digest}")'),
    "imgfs mount --foreground": Elsewhere("systemd/imgfs@.service", "imgfs mount --foreground"),
    "podman system service": Elsewhere("engines.py", '"system", "service"'),
    "docker cp": Elsewhere("scripts/benchmarks/engine_files.py", 'docker("cp"'),
    "podman save": Elsewhere("test_producers.py", '"podman", "save"'),
}
RUN_IN = {
    "json.md": "test_looks.py",
    "performance.md": "test_bench.py",
    "reliability.md": "test_mount_drills.py",
    "SECURITY.md": "test_privileges.py",
    "recipes.md": "test_recipes.py",
    "CHANGELOG.md": "test_help.py",
    "architecture.md": "test_helper.py",
}
"""Documents whose prose is about commands of the program's own tests: the file that has these."""


def _file(name: str) -> Path:
    """Return the file of the repository that has this name or path."""
    if (REPOSITORY / name).exists():
        return REPOSITORY / name
    folders = ("tests", "scripts", ".ci")
    (path,) = (path for folder in folders for path in (REPOSITORY / folder).rglob(name) if path.is_file())
    return path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_command_in_the_prose_is_known(document: Path) -> None:
    if document.name in RUN_IN:
        assert _file(RUN_IN[document.name])
        return
    commands = {span for span in spans(document) if is_command(span)}
    scripts = {command for command in commands if command.split()[0] in SCRIPTS}
    known = {*RUN, *RUN_ELSEWHERE, *EXAMPLES, *(step.command for step in SESSION)}
    assert sorted(commands - scripts - known) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_block_is_run_as_it_stands_or_names_the_test_that_runs_it(document: Path) -> None:
    for block in blocks(document):
        assert block.kind in {"console", "sh", "text", "python", "fstab"}
        if block.runner:
            assert _file(block.runner)
        elif block.kind == "sh":
            unknown = [line for line in block.commands if not is_command(line) and line.split()[0] not in SCRIPTS]
            assert unknown == []
        else:
            assert (block.kind, document.name) in {("console", "README.md"), ("python", "python.md")} or (
                block.kind == "text" and not re.search(r"^\$ ", block.text, re.MULTILINE)
            )


def test_a_file_that_is_said_to_run_something_does() -> None:
    missing = [name for name, where in RUN_ELSEWHERE.items() if where.words not in _file(where.file).read_text()]
    assert missing == []
    assert [script for script, file in SCRIPTS.items() if not (REPOSITORY / script).exists() or not _file(file)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_line_is_wider_than_120_columns(document: Path) -> None:
    lines = enumerate(document.read_text().splitlines(), 1)
    assert [number for number, line in lines if len(line) > 120] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_link_leads_to_a_file(document: Path) -> None:
    targets = re.findall(r"\]\(([^):#]+)(?:#[^)]*)?\)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_test_that_is_named_exists(document: Path) -> None:
    names = {span for span in spans(document) if re.fullmatch(r"(?:[a-z0-9]+/)*test_\w+\.py", span)}
    found = {name for name in names if (REPOSITORY / name).exists() or any((REPOSITORY / "tests").rglob(name))}
    assert names - found == set()


def test_the_readme_fits_a_page() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 115
    assert len(text.split()) <= 1000


@pytest.fixture(name="images", scope="module")
def images_of_the_session(docker_engine: RealEngine) -> Iterator[RealEngine]:
    """Give an engine that has the session's second image as well: its nginx has another number of processes."""
    need(ROOT, "unshare", "jq", "skopeo", "umoci", "podman")
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


def _need_programs(command: str) -> None:
    for program in re.findall(r"podman|buildah|umoci|getfattr|fish|dpkg-query", command):
        need(program)


@pytest.mark.parametrize("command", RUN.values(), ids=RUN.keys())
def test_it_runs(imgfs: Bench, images: RealEngine, command: str) -> None:
    _need_programs(command)
    mounted = f"imgfs mount --log-file {imgfs.log} {SMALL} /mnt/img"
    before, done = run_in_shell([mounted, f"set -o pipefail; {command}"], _environment(imgfs, images), imgfs.folder)
    assert (before.status, done.status) == (0, 0), (before.output, done.output)


def test_the_examples_run_one_after_the_other(imgfs: Bench, images: RealEngine) -> None:
    said = run_in_shell(EXAMPLES, _environment(imgfs, images), imgfs.folder)
    assert [(command, done.output) for command, done in zip(EXAMPLES, said, strict=True) if done.status] == []


def _blocks_to_run() -> Iterator[tuple[str, list[str]]]:
    for document in DOCUMENTS:
        for number, block in enumerate(blocks(document), 1):
            commands = [command for command in block.commands if not re.match(r"(sudo )?scripts/", command)]
            if block.kind == "sh" and not block.runner and commands:
                yield f"{document.name} {number}", commands


@pytest.mark.parametrize("commands", [pytest.param(commands, id=name) for name, commands in _blocks_to_run()])
def test_a_block_runs_as_it_stands(imgfs: Bench, images: RealEngine, commands: list[str]) -> None:
    _need_programs(" ".join(commands))
    secret = layer({"root/key.pem": b"-----BEGIN PRIVATE KEY-----\n"})
    Archive([layer({"etc/motd": b"hello\n"}), secret, layer({"root/.wh.key.pem": b""})]).write(imgfs.folder / "app.tar")
    environment = _environment(imgfs, images)
    if "syft" in " ".join(commands):
        environment |= {"PATH": f"{environment['PATH']}:{syft_program().parent}", **QUIET_SYFT}
    said = run_in_shell(
        [
            f"imgfs mount --log-file {imgfs.log} {NGINX} /mnt/img",
            *commands,
            "! mountpoint -q /mnt/rw/merged || umount $_",
        ],
        environment,
        imgfs.folder,
    )
    assert [(command, done) for command, done in zip(commands, said[1:], strict=False) if done.status] == []
    assert (said[0].status, said[-1].status) == (0, 0)


def test_the_demo_runs(imgfs: Bench) -> None:
    stamp = REPOSITORY / ".venv" / "stamp"
    if not stamp.exists() or str(REPOSITORY) not in stamp.read_text():
        give_up("needs a .venv that scripts/setup made here: else the demo would make one")
    done = subprocess.run(
        [REPOSITORY / "scripts" / "demo"], env=imgfs.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    lines = done.stdout.splitlines()
    assert len(lines) < 60
    shown = [line.split()[1:3] for line in lines if line.startswith("$ ")]
    assert [" ".join(words).partition(" ./")[0] for words in shown] == [
        *("imgfs mount", "ls -l", "ls img/rootfs/etc", "cat img/layers/1/etc/password"),
        *("imgfs inspect", "imgfs which", "imgfs diff", "imgfs umount"),
    ]
    assert "Try next:" in done.stdout.partition("$ imgfs umount img")[2]
