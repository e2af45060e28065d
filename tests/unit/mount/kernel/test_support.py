"""Which kernels may mount EROFS, and from what."""

import pytest

from fusefs.mount.kernel.support import Backing, KernelUnable, backing_of, can_mount_beneath, kernel_version

FILES = [
    "6.12.80",
    "6.12.118+deb13-amd64",
    "6.12.999",
    "6.18.21",
    "6.18.44-fc-v857",
    "6.19.11-arch1-1",
    "7.0.0-12-generic",
]
FILES += ["7.0", "7.0.1", "7.2.13+deb14-amd64", "8.0.0-rc1", "10.3.1"]
LOOPS = ["6.1.113", "6.1.192", "6.4.0", "6.4.0-150600.23.7-default", "6.5.0", "6.6.87.2-microsoft-standard-WSL2"]
LOOPS += ["6.8.0-151-generic", "6.11.11", "6.12.0-rc2", "6.12.0", "6.12.0-55.el10.x86_64", "6.12.1", "6.12.2"]
LOOPS += ["6.12.79", "6.13.12", "6.14.0-29-generic", "6.14.7", "6.15.11", "6.16.12", "6.17.0-8-generic", "6.17.13"]
LOOPS += ["6.18.0", "6.18.20", "6.19.0-rc8", "6.19.10", "7.0.0-rc7"]
NOTHING = ["2.6.32", "4.19.325", "5.14.0-427.el9.x86_64", "5.15.0-122-generic", "6.0.19", "6.1.0-28-amd64", "6.1.112"]
NOTHING += ["6.2.16", "6.3.13", "6.4.0-rc7"]


@pytest.mark.parametrize("release", FILES)
def test_kernels_that_read_files_correctly(release: str) -> None:
    assert backing_of(release) is Backing.FILE


@pytest.mark.parametrize("release", LOOPS)
def test_kernels_that_need_loop_devices(release: str) -> None:
    assert backing_of(release) is Backing.LOOP


@pytest.mark.parametrize("release", NOTHING)
def test_kernels_without_512_byte_blocks(release: str) -> None:
    with pytest.raises(KernelUnable, match=r"^kernel mounts need Linux 6\.4 or later, or 6\.1\.113 or a later 6\.1; "):
        backing_of(release)


@pytest.mark.parametrize(
    "release", ["", "linux", "6", "6.", "v6.12.90", "99999.1.2", "6.12345.2", "six.12.90", "\n6.12.90"]
)
def test_versions_that_are_not_understood_give_no_kernel_mount(release: str) -> None:
    with pytest.raises(KernelUnable, match=r"^kernel mounts are not possible: unknown kernel version '") as caught:
        backing_of(release)
    assert str(caught.value).isprintable()


def test_a_candidate_is_named_as_one() -> None:
    with pytest.raises(KernelUnable, match=r"; this is 6\.4-rc$"):
        backing_of("6.4.0-rc7")


def test_the_true_version_of_debians_kernels_counts() -> None:
    names = "6.1.0-28-amd64", "#1 SMP PREEMPT_DYNAMIC Debian {}-1 (2024-11-22)"
    assert backing_of(names[0], names[1].format("6.1.113")) is Backing.LOOP
    with pytest.raises(KernelUnable, match=r"; this is 6\.1\.112$"):
        backing_of(names[0], names[1].format("6.1.112"))


def test_the_patch_level_ends_at_the_first_other_character() -> None:
    assert kernel_version("6.12.118+deb13-amd64") == (6, 12, 118)
    assert kernel_version("6.6.87.2-microsoft-standard-WSL2") == (6, 6, 87)
    assert kernel_version("7.1-rc3") == (7, 1, -1)


def test_mounts_beneath_others_need_6_5() -> None:
    assert [can_mount_beneath(release) for release in ("6.4.16", "6.5.0-rc1", "6.5.0", "6.12.80", "x")] == [
        *(False, False, True, True, False)
    ]
