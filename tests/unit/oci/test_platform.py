"""Platforms, and which image suits which machine."""

import os
from collections.abc import Callable

import pytest

from fusefs.oci.platform import Platform, suitability


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("linux/arm64/v8", Platform("linux", "arm64", "v8")),
        ("linux/arm/v7", Platform("linux", "arm", "v7")),
        ("windows/amd64", Platform("windows", "amd64")),
        ("Linux/AMD64", Platform("linux", "amd64")),
        ("linux/aarch64", Platform("linux", "arm64")),
        ("linux/x86_64", Platform("linux", "amd64")),
        ("linux/i386", Platform("linux", "386")),
        ("linux/386", Platform("linux", "386")),
        ("linux/x86-64", Platform("linux", "amd64")),
        ("linux/amd64/v2", Platform("linux", "amd64", "v2")),
        ("linux/arm64/8", Platform("linux", "arm64", "v8")),
        ("linux/ARMHF", Platform("linux", "arm", "v7")),
        ("linux/armel", Platform("linux", "arm", "v6")),
        ("linux/armv6l", Platform("linux", "arm", "v6")),
        ("macos/arm64", Platform("darwin", "arm64")),
        ("arm64", Platform("linux", "arm64")),
        ("aarch64", Platform("linux", "arm64")),
        ("armhf", Platform("linux", "arm", "v7")),
        ("amd64/v2", Platform("linux", "amd64", "v2")),
        ("arm/7", Platform("linux", "arm", "v7")),
        ("windows(10.0.20348)/amd64", Platform("windows", "amd64", os_version="10.0.20348")),
        ("Windows(10.0.20348.2113)/amd64", Platform("windows", "amd64", os_version="10.0.20348.2113")),
        ("windows()/amd64", Platform("windows", "amd64")),
        # Neither is known, and both are in their place.
        ("plan10/vax", Platform("plan10", "vax")),
    ],
)
def test_a_platform_is_read_with_its_architecture_as_go_names_it(text: str, platform: Platform) -> None:
    # The aliases are those of github.com/containerd/platforms.
    assert Platform.parse(text) == platform


@pytest.mark.parametrize(
    "text",
    [
        *("", "vax", "unknown", "linux/", "/amd64", "linux//v8", "a/b/c/d", "linux/amd 64", "linux/é", "linux/amd64/"),
        *("amd64/", "linux(/amd64", "linux(1)2/amd64", "(1)/amd64", "windows(1 0)/amd64", "linux/amd64(1)"),
    ],
)
def test_what_is_no_platform_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="bad platform") as caught:
        Platform.parse(text)
    assert str(caught.value) == f"bad platform {text!r}: expected OS/ARCH[/VARIANT], as in linux/arm64"


@pytest.mark.parametrize("text", ["linux/amd64", "linux/arm64/v8", "windows/386", "windows(10.0)/amd64"])
def test_a_platform_is_written_as_it_is_read(text: str) -> None:
    assert str(Platform.parse(text)) == text


@pytest.mark.parametrize(
    ("platform", "known"),
    [
        (Platform("linux", "amd64"), True),
        (Platform("", ""), True),
        (Platform("unknown", "unknown"), False),
        (Platform("linux", "unknown"), False),
        (Platform("unknown", "amd64"), False),
    ],
)
def test_an_attestations_platform_is_known_as_unknown(platform: Platform, *, known: bool) -> None:
    assert platform.known is known


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that makes this machine another one."""

    def become(name: str) -> None:
        monkeypatch.setattr("os.uname", lambda: os.uname_result(("Linux", "host", "6.18", "#1", name)))

    return become


@pytest.mark.parametrize(
    ("name", "platform"),
    [
        ("x86_64", Platform("linux", "amd64")),
        ("aarch64", Platform("linux", "arm64")),
        ("armv7l", Platform("linux", "arm")),
        ("i686", Platform("linux", "386")),
        ("s390x", Platform("linux", "s390x")),
        ("loongarch64", Platform("linux", "loong64")),
        ("riscv64", Platform("linux", "riscv64")),
        ("vax", Platform("linux", "vax")),
    ],
)
def test_this_machine_runs_what_its_kernel_says(machine: Callable[[str], None], name: str, platform: Platform) -> None:
    machine(name)
    assert Platform.of_host() == platform


def test_an_older_arm_does_not_run_what_v7_needs(machine: Callable[[str], None]) -> None:
    machine("armv6l")
    host = Platform.of_host()
    ranks = [suitability(Platform.parse(f"linux/arm/{variant}"), host, exact=False) for variant in ("v5", "v6", "v7")]
    assert ranks[0] is not None
    assert ranks[1] is not None
    assert ranks[2] is None or ranks[2] > max(ranks[0], ranks[1])


@pytest.mark.parametrize(
    ("wanted", "exact", "order"),
    [
        ("linux/amd64", False, ["linux/amd64", "linux/amd64/v2", "linux/386"]),
        ("linux/amd64", True, ["linux/amd64/v1", "linux/amd64/v2", "linux/amd64/v3"]),
        ("linux/amd64/v3", True, ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"]),
        ("linux/arm64", False, ["linux/arm64", "linux/arm64/v9", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6"]),
        ("linux/arm64/v8", True, ["linux/arm64"]),
        ("linux/arm/v7", True, ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ("linux/arm", False, ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5", "linux/arm/v8"]),
        ("linux/386", False, ["linux/386"]),
        ("windows(10.0.1)/amd64", True, ["windows(10.0.1.7)/amd64", "windows/amd64"]),
    ],
)
def test_images_suit_in_this_order(wanted: str, order: list[str], *, exact: bool) -> None:
    target = Platform.parse(wanted)
    ranks = [suitability(Platform.parse(text), target, exact=exact) for text in order]
    suiting = [rank for rank in ranks if rank is not None]
    assert len(suiting) == len(order)
    assert suiting == sorted(set(suiting))


@pytest.mark.parametrize(
    ("image", "wanted", "exact"),
    [
        ("linux/arm64", "linux/amd64", False),
        ("windows/amd64", "linux/amd64", False),
        ("linux/amd64", "linux/386", False),
        ("linux/386", "linux/amd64", True),
        ("linux/arm/v7", "linux/arm64", True),
        ("linux/arm/v7", "linux/arm/v6", True),
        ("linux/amd64/v4", "linux/amd64/v3", True),
        ("linux/arm64/v9", "linux/arm64/v8", True),
        ("windows(10.0.17)/amd64", "windows(10.0.1)/amd64", True),
        ("windows(10.0)/amd64", "windows(10.0.1)/amd64", True),
    ],
)
def test_what_does_not_run_does_not_suit(image: str, wanted: str, *, exact: bool) -> None:
    assert suitability(Platform.parse(image), Platform.parse(wanted), exact=exact) is None


@pytest.mark.parametrize(("architecture", "variant"), [("arm64", "v8"), ("arm", "v7"), ("amd64", "v1")])
def test_a_variant_that_is_not_stated_is_the_usual_one(architecture: str, variant: str) -> None:
    silent, stated = Platform("linux", architecture), Platform("linux", architecture, variant)
    for image in (silent, stated):
        for wanted in (silent, stated):
            assert suitability(image, wanted, exact=True) == 0


@pytest.mark.parametrize("variant", ["²", "v", "vv", "v1e9", "v" + "9" * 5000, "-1"])
def test_a_senseless_variant_of_an_image_is_no_crash(variant: str) -> None:
    suitability(Platform("linux", "arm", variant), Platform("linux", "arm"), exact=False)


@pytest.mark.parametrize(
    ("stated", "wanted"),
    [
        (Platform("linux", "aarch64"), "linux/arm64"),
        (Platform("Linux", "X86_64"), "linux/amd64/v1"),
        (Platform("linux", "armhf"), "linux/arm/v7"),
        (Platform("linux", "armel"), "linux/arm/v6"),
        (Platform("linux", "arm", "7"), "linux/armhf"),
        (Platform("linux", "arm64", "v8.0"), "linux/arm64"),
        (Platform("macos", "aarch64"), "darwin/arm64"),
        (Platform("windows", "amd64", os_version="10.0.20348.2113"), "windows/amd64"),
    ],
)
def test_the_names_that_an_image_states_are_normalized_too(stated: Platform, wanted: str) -> None:
    assert suitability(stated, Platform.parse(wanted), exact=True) == 0


def test_an_operating_system_alone_is_meant_for_this_machine(machine: Callable[[str], None]) -> None:
    machine("aarch64")
    assert Platform.parse("linux") == Platform("linux", "arm64")
    assert Platform.parse("windows(10.0.1)") == Platform("windows", "arm64", os_version="10.0.1")
    assert Platform.parse("macOS") == Platform("darwin", "arm64")
