"""imgfs report: the page in a browser, of images whose names and texts are made to break it."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import Archive, image_config
from tests.support.changesets import About, changeset, file, folder, whiteout
from tests.support.chromium import Browser, browser
from tests.support.looks import document, imgfs, printed, refused
from tests.support.mounts import Bench
from tests.support.terminals import Terminal

pytestmark = pytest.mark.usefixtures("own_cache")

EVIL = "</script><script>document.title='x'</script><img src=http://127.0.0.1:9/ onerror=alert(1)><!--\u2028\u202e'\""
NAME = EVIL.replace("/", "%").encode() + b"\xff"
LAYERS = [
    changeset(
        folder("usr"),
        folder("usr/share"),
        *(file(f"usr/share/{number}", bytes(1000 + number)) for number in range(40)),
        file("usr/big", bytes(500_000)),
        file(b"etc/" + NAME, bytes(90_000)),
        file("opt/gone", bytes(200_000)),
    ),
    changeset(
        whiteout("opt/gone"), file("opt/app", bytes(300_000)), file("usr/share/0", b"0" * 2000, About(mode=0o600))
    ),
]


def config(layers: list[bytes], version: str) -> bytes:
    """Return an image config full of markup."""
    run = {"Env": [f"A={EVIL}", f"VERSION={version}"], "Labels": {EVIL: EVIL}, "User": EVIL, "Cmd": [EVIL]}
    return image_config(layers, config=run, history=[{"created_by": EVIL}, {"created_by": "RUN rm /opt/gone"}])


@pytest.fixture(name="images", scope="module")
def two_images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Write two images that differ in a few files."""
    folder_ = tmp_path_factory.mktemp("images")
    other = [
        LAYERS[0],
        changeset(file("opt/app", bytes(310_000)), whiteout("usr/big"), file(b"new" + NAME, bytes(5000))),
    ]
    return (
        Archive(LAYERS, config=config(LAYERS, "1")).write(folder_ / "one.tar"),
        Archive(other, config=config(other, "2")).write(folder_ / "two.tar"),
    )


@pytest.fixture(name="page", scope="module")
def browser_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture(name="one")
def page_of_one(page: Browser, images: tuple[Path, Path], tmp_path: Path) -> Browser:
    """Open the page of one image."""
    report = tmp_path / "report.html"
    assert re.fullmatch(rf"wrote {report}: \d+\.\d kB", printed("report", images[0], "-o", report)[0])
    page.open(report)
    return page


def table(page: Browser, label: str) -> Any:
    """Return the cells of a table."""
    rows = f"[...document.querySelectorAll('table[aria-label=\"{label}\"] tbody tr')]"
    return page.value(f"{rows}.map((row) => [...row.cells].map((cell) => cell.textContent))")


def heads(label: str, title: str) -> str:
    """Return an expression for the button in a column's head."""
    buttons = f"[...document.querySelectorAll('table[aria-label=\"{label}\"] th button')]"
    return f"{buttons}.find((button) => button.textContent === '{title}')"


def test_nothing_of_an_image_becomes_markup_or_runs(one: Browser, images: tuple[Path, Path]) -> None:
    assert one.value("document.title") == f"{images[0]} – imgfs report"
    tags = ["img", "iframe", "object", "embed", "link", "base", "form", "svg", "math", "audio", "video", "a"]
    found = {tag: one.value(f"document.querySelectorAll('{tag}').length") for tag in [*tags, "script"]}
    assert found == dict.fromkeys(tags, 0) | {"script": 2}
    text = one.value("document.body.textContent")
    assert "<img src=http:%%127.0.0.1:9% onerror=alert(1)><!--\\u2028\\u202e'\"\\xff" in text
    assert "\u202e" not in one.value("document.getElementById('page').textContent")
    asked = [
        event["params"]["request"]["url"] for event in one.events if event["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith("file:")] == []
    assert [
        event for event in one.events if event["method"] in {"Page.javascriptDialogOpening", "Runtime.exceptionThrown"}
    ] == []


def test_the_policy_lets_no_other_script_run_and_nothing_be_asked_for(one: Browser) -> None:
    one.value(
        "(() => { const script = document.createElement('script'); script.textContent = 'window.ran = 1';"
        "const more = document.createElement('div'); more.innerHTML = '<img src=x onerror=\"window.ran = 2\">';"
        "document.body.append(script, more); })()"
    )
    assert one.value("new Promise((done) => setTimeout(() => done(window.ran), 0))") is None
    assert (
        one.value("fetch('http://127.0.0.1:9/').then(() => 'sent', (error) => error.constructor.name)") == "TypeError"
    )
    assert one.value("document.querySelector('meta[http-equiv]').content").startswith(
        "default-src 'none'; style-src 'sha256-"
    )


def test_tables_are_sorted_by_mouse_and_keyboard(one: Browser) -> None:
    sizes = [row[0] for row in table(one, "largest files")[:3]]
    assert sizes == ["500.0 kB", "300.0 kB", "90.0 kB"]
    one.click(heads("largest files", "Size"))
    assert [row[0] for row in table(one, "largest files")[:2]] == ["1.0 kB", "1.0 kB"]
    assert one.value(f"{heads('largest files', 'Size')}.parentElement.ariaSort") == "ascending"
    one.value(f"{heads('largest files', 'File')}.focus()")
    one.press("Enter")
    assert table(one, "largest files")[0][2].startswith("/etc/")
    assert one.value(f"{heads('largest files', 'Size')}.parentElement.ariaSort") == "none"
    assert [row[:2] for row in table(one, "layers")] == [["0", "830.8 kB"], ["1", "302.0 kB"]]
    assert table(one, "wasted files")[0] == ["200.0 kB", "0", "deleted by layer 1", "/opt/gone"]


def test_the_treemap_opens_directories_by_mouse_and_keyboard(one: Browser) -> None:
    crumbs = "document.querySelector('.crumbs').textContent"
    tile = "[...document.querySelectorAll('.tile')].find((tile) => tile.ariaLabel.startsWith('{}'))"
    told = "document.querySelector('.about').textContent"
    one.click(tile.format("/usr, "))
    assert one.value(crumbs) == "/usr"
    # The mouse rests on a tile of the directory that has been opened: that tells nothing until it moves.
    one.value("new Promise((done) => setTimeout(done, 500))")
    assert one.value(told).startswith("/usr541.8 kB")
    one.value(f"{tile.format('/usr/share, ')}.focus()")
    assert one.value(told).startswith("/usr/share41.8 kB")
    one.press("Enter")
    assert one.value(crumbs) == "/usr/share"
    before = one.value("document.activeElement.ariaLabel")
    one.press("ArrowRight")
    assert one.value("document.activeElement.ariaLabel") != before
    one.press("Backspace")
    one.press("Backspace")
    assert one.value(crumbs).startswith("/all of it")
    assert one.value("document.activeElement.ariaLabel").startswith("/usr, ")
    # Layer 1 pressed: files of the other layer are dimmed.
    one.click("document.querySelectorAll('.stack button')[1]")
    assert one.value(f"{tile.format('/usr/big')}.classList.contains('dimmed')")
    assert not one.value(f"{tile.format('/opt/app')}.classList.contains('dimmed')")


def test_it_is_light_or_dark_and_fits_a_phone(one: Browser) -> None:
    colours = []
    for scheme in ("light", "dark"):
        one.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        colours.append(one.value("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(246, 247, 249)", "rgb(18, 21, 26)"]
    one.call("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=True)
    try:
        assert one.value("document.documentElement.scrollWidth") == 400
    finally:
        one.call("Emulation.clearDeviceMetricsOverride")


def test_two_images_show_what_differs(page: Browser, images: tuple[Path, Path], tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    printed("report", *images, "-o", report)
    page.open(report)
    rows = {row[3]: row[:3] for row in table(page, "files that differ")}
    assert rows["/usr/big"] == ["removed", "500.0 kB", "–"]
    assert rows["/opt/app"] == ["changed", "300.0 kB", "310.0 kB"]
    assert rows["/opt/gone"] == ["added", "–", "200.0 kB"]
    assert ["env VERSION", "1", "2"] in table(page, "configuration that differs")
    assert page.value("document.querySelectorAll('script').length") == 2
    assert page.value("document.querySelector('h1').textContent").endswith("two.tar")
    page.click("document.querySelectorAll('[role=tab]')[1]")
    assert page.value("document.querySelector('[aria-selected=true]').textContent").endswith("two.tar")
    assert table(page, "largest files")[0][0] == "310.0 kB"


def test_a_damaged_database_of_packages_is_told_on_the_page(
    page: Browser, images: tuple[Path, Path], tmp_path: Path
) -> None:
    broken = Archive([changeset(file("usr/lib/sysimage/rpm/rpmdb.sqlite", b"x" * 5000))]).write(tmp_path / "broken.tar")
    report = tmp_path / "report.html"
    printed("report", images[0], broken, "-o", report)
    page.open(report)
    why = "Not compared: /usr/lib/sysimage/rpm/rpmdb.sqlite is damaged: file is not a database"
    assert why in page.value("document.body.textContent")
    assert table(page, "files that differ")


def test_the_same_data_come_as_json(images: tuple[Path, Path]) -> None:
    found = document("report", "--json", *images)
    assert list(found) == ["generator", "images", "differences"]
    assert found["differences"]["counts"] == {"added": [2, 205000], "removed": [1, 500000], "changed": [2, 312000]}
    first = found["images"][0]
    assert (first["wasted"], first["files"], first["tree"][0][2]) == (201000, 43, first["size"])
    assert document("report", "--json", images[0])["differences"] is None


def test_the_file_is_written_as_a_whole_or_not(images: tuple[Path, Path], tmp_path: Path, imgfs_bench: Bench) -> None:
    image = images[0]
    assert refused("report", image) == (2, "-o is missing; use -o report.html")
    assert refused("report", "--json", "-o", "x", image)[0] == 2
    assert refused("report", "-o", "", image) == (2, "--output is empty")
    assert refused("report", "-o", tmp_path / "no" / "x.html", image) == (
        8, f"cannot write {tmp_path}/no/x.html: No such file or directory"
    )  # fmt: skip
    assert refused("report", "-o", tmp_path, image)[0] == 8
    (tmp_path / "link").symlink_to("real.html")
    printed("report", "-q", "-o", tmp_path / "link", image)
    assert sorted(os.listdir(tmp_path)) == ["link", "real.html"]
    done = imgfs("report", image, "-o", "-")
    assert (done.status, done.out) == (0, (tmp_path / "real.html").read_text())
    terminal = Terminal(imgfs_bench, "report", image, "-o", "-")
    assert (terminal.end(), "a page is not written to a terminal" in terminal.seen) == (2, True)


@pytest.fixture(name="imgfs_bench")
def bench_by_another_name(request: pytest.FixtureRequest) -> Bench:
    found: Bench = request.getfixturevalue("imgfs")
    return found
