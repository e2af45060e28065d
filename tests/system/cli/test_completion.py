"""Completion in real shells: what a line is after a press of the Tab key."""

import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.builders import Archive
from tests.support.fake_engine import Script, fake_engine
from tests.support.image_names import IMAGES
from tests.support.mounts import COMMAND, Bench
from tests.support.requirements import give_up, need
from tests.support.shells import shell, variables

PACKAGE = "/usr/share/bash-completion/bash_completion"
"""What many have loaded into bash."""
Complete = Callable[[str], str]
"""Gives the line after what is typed and a press of Tab."""


def beginnings() -> dict[str, tuple[str, str]]:
    """Return the shells that are tried, each with what it has loaded before."""
    return {
        "bash": ("bash", ""),
        "bash with bash-completion": ("bash", f"source {PACKAGE}\n"),
        "bash with a colon in words": ("bash", "COMP_WORDBREAKS=${COMP_WORDBREAKS//[=@:]}\n"),
        "zsh": ("zsh", ""),
        "fish": ("fish", ""),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with archives and folders in it."""
    folder = tmp_path_factory.mktemp("completion") / "work"
    for path in ("plain.tar", "my archives/an image.tar", "other/x", "dollar$(touch evil)/x.tar", "-f.tar"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


@pytest.fixture(scope="module", params=beginnings())
def complete(request: pytest.FixtureRequest, folder: Path) -> Iterator[Complete]:
    """Give each shell, on a terminal, with an engine."""
    name, before = beginnings()[request.param]
    need(name)
    if before.startswith("source") and not Path(PACKAGE).exists():
        give_up("needs the package bash-completion")
    with fake_engine(Script(images=IMAGES), socket=folder.parent / f"{request.param}.sock") as engine:
        environment = {"DOCKER_HOST": engine.host, "HOME": str(folder.parent)}
        if name == "fish":
            yield lambda typed: in_fish(typed, folder, environment)
        else:
            with shell(name, folder, environment, before) as one:
                yield one.completed


def in_fish(typed: str, folder: Path, environment: dict[str, str]) -> str:
    """Return the line that fish, which says what it would do, makes of *typed* if there is only one candidate."""
    script = "imgfs completion fish | source; complete -C $argv[1]"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script, typed],
        cwd=folder,
        env=variables(environment),
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert done.stderr == ""
    found = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    if len(found) != 1:
        return typed
    before = shlex.split(typed + ("'" if typed.count("'") % 2 else '"' if typed.count('"') % 2 else ""))[:-1]
    space = "" if found[0].endswith(("/", "=", ":")) else " "
    return shlex.join([*before, found[0]]) + space


def words(line: str) -> list[str]:
    """Return the words of a *line* in which a quote may still be open."""
    try:
        return shlex.split(line)
    except ValueError:
        return shlex.split(line + ("'" if line.count("'") % 2 else '"'))


@pytest.mark.parametrize(
    ("typed", "last"),
    [
        ("imgfs mo", "mount"),
        ("imgfs cache pr", "prune"),
        ("imgfs completion b", "bash"),
        ("imgfs mount --no-ca", "--no-cache"),
        ("imgfs ls --hu", "--human-readable"),
        ("imgfs mount -o allow_o", "allow_other"),
        ("imgfs mount -o allow_other,tra", "allow_other,transform_symlinks"),
        ("imgfs mount nginx:la", "nginx:latest"),
        ("imgfs mount -f nginx:la", "nginx:latest"),
        ("imgfs mount --platform=linux/arm64 nginx:la", "nginx:latest"),
        ("imgfs mount localhost:5000/te", "localhost:5000/team/app:v1"),
        ("imgfs mount docker-daemon:nginx:l", "docker-daemon:nginx:latest"),
        ('imgfs mount "nginx:la', "nginx:latest"),
        ("imgfs mount 'nginx:la", "nginx:latest"),
        ("imgfs inspect nginx:la", "nginx:latest"),
        ("imgfs ls -l nginx:la", "nginx:latest"),
        ("imgfs which nginx:la", "nginx:latest"),
        ("imgfs cat nginx:la", "nginx:latest"),
        ("imgfs help mou", "mount"),
        ("imgfs help opt", "options"),
        ("imgfs diff nginx:latest nginx:1", "nginx:1.27"),
        ("imgfs mount pl", "plain.tar"),
        ("imgfs mount ./pl", "./plain.tar"),
        ("imgfs mount docker-archive:pl", "docker-archive:plain.tar"),
        ("imgfs mount oci-archive:./pl", "oci-archive:./plain.tar"),
        ("imgfs mount docker-archive:my\\ archives/", "docker-archive:my archives/an image.tar"),
        ("imgfs mount 'docker-archive:my archives/", "docker-archive:my archives/an image.tar"),
        ('imgfs mount "my archives/', "my archives/an image.tar"),
        ("imgfs mount nginx --log-file pl", "plain.tar"),
        ("imgfs mount nginx --log-file=pl", "--log-file=plain.tar"),
    ],
)
def test_a_word_is_completed_and_ended(complete: Complete, typed: str, last: str) -> None:
    line = complete(typed)
    assert words(line) == [*words(typed)[:-1], last]
    assert line.endswith(" ")


@pytest.mark.parametrize(
    ("typed", "last"),
    [
        ("imgfs mount docker-ar", "docker-archive:"),
        ("imgfs mount docker-archive:my", "docker-archive:my archives/"),
        ('imgfs mount "docker-archive:my ar', "docker-archive:my archives/"),
        ("imgfs mount oci:ot", "oci:other/"),
        ("imgfs mount nginx ot", "other/"),
        ("imgfs mount my", "my archives/"),
        ("imgfs mount docker-archive:dol", "docker-archive:dollar$(touch evil)/"),
        ("imgfs mount -o tmpd", "tmpdir="),
    ],
)
def test_a_word_that_goes_on_is_not_ended(complete: Complete, typed: str, last: str) -> None:
    line = complete(typed)
    assert words(line) == [*words(typed)[:-1], last]
    assert not line.endswith(" ")


@pytest.mark.parametrize(
    "typed",
    [
        "imgfs mount nginx:latest:/e",
        "imgfs mount docker-archive:plain.tar:",
        "imgfs mount oci:pl",
        "imgfs mount oci:other:o",
        "imgfs which nginx:latest /e",
        "imgfs list pl",
        "imgfs nonsense pl",
        "imgfs mount nginx other pl",
        "imgfs mount --host pl",
        "imgfs mount --host unix:///nowhere nginx:la",
        "imgfs umount pl",
        "imgfs mount $(touch evil) nginx ot",
    ],
)
def test_nothing_is_made_up_and_nothing_is_run(complete: Complete, folder: Path, typed: str) -> None:
    assert words(complete(typed)) == words(typed)
    assert not (folder / "evil").exists()


@pytest.mark.parametrize("typed", ["$", "`", "a;", "x", "-o:", "..", "'x"])
def test_names_that_no_image_can_have_are_not_offered(complete: Complete, folder: Path, typed: str) -> None:
    complete(f"imgfs inspect {typed}")
    assert not (folder / "evil").exists()


@pytest.mark.parametrize(
    ("name", "file", "before"),
    [
        ("bash", ".local/share/bash-completion/completions/imgfs", f"source {PACKAGE}\n"),
        ("zsh", "functions/_imgfs", "fpath=(~/functions $fpath)\n"),
    ],
)
def test_a_script_may_lie_where_the_shell_looks_for_it(folder: Path, name: str, file: str, before: str) -> None:
    need(name)
    if name == "bash" and not Path(PACKAGE).exists():
        give_up("needs the package bash-completion")
    install = f"mkdir -p ~/{Path(file).parent}; imgfs completion {name} > ~/{file}\n"
    with shell(name, folder, {}, install + before, load=False) as one:
        assert one.completed("imgfs mount docker-archive:pl") == "imgfs mount docker-archive:plain.tar "
        assert one.completed("imgfs umo") == "imgfs umount "


MOUNTPOINTS = ["my mount", "co:lon", "dollar$(touch evil)", "plain"]


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_umount_completes_what_is_mounted(imgfs: Bench, name: str) -> None:
    need(name)
    archive = Archive().write(imgfs.folder / "x.tar")
    mountpoints = [imgfs.mount(archive, at=imgfs.mountpoint(mountpoint)) for mountpoint in MOUNTPOINTS]
    imgfs.mountpoint("plaintive")  # nothing is mounted here
    work = imgfs.mountpoint("work")

    def all_completed(complete: Complete, folder: str) -> list[str]:
        lines = [complete(f"imgfs umount plain {folder}{begin}") for begin in ("my", "co", "dol", "pla")]
        assert [line[-1:] for line in lines] == [" "] * 4
        return [words(line)[-1] for line in lines]

    if name == "fish":
        assert all_completed(lambda typed: in_fish(typed, work, {}), f"{imgfs.folder}/") == list(map(str, mountpoints))
        assert all_completed(lambda typed: in_fish(typed, imgfs.folder, {}), "") == MOUNTPOINTS
    else:
        with shell(name, work, {}) as one:
            assert all_completed(one.completed, f"{imgfs.folder}/") == list(map(str, mountpoints))
            assert words(one.completed(f"imgfs umount -l {imgfs.folder}/co:l"))[-1] == f"{imgfs.folder}/co:lon"
            assert words(one.completed(f'imgfs umount "{imgfs.folder}/my '))[-1] == f"{imgfs.folder}/my mount"
    assert not (work / "evil").exists()
    assert not (imgfs.folder / "evil").exists()


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_the_scripts_are_printed_and_have_no_error(name: str) -> None:
    need(name)
    script = subprocess.run([COMMAND, "completion", name], capture_output=True, check=True).stdout
    done = subprocess.run([name, "-n"], input=script, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
