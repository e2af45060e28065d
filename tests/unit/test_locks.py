"""requirements/*.txt pin all that pyproject.toml and requirements/*.in ask for, each file with its hashes."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUN = PROJECT["project"]["dependencies"]
EXTRAS = [line for extra in PROJECT["project"]["optional-dependencies"].values() for line in extra]


def _listed(name: str) -> list[str]:
    lines = (ROOT / "requirements" / f"{name}.in").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


WANTED = {
    "build": [*_listed("build"), *PROJECT["build-system"]["requires"]],
    "run": RUN,
    "dev": [*RUN, *EXTRAS, *PROJECT["dependency-groups"]["dev"]],
    "moto": _listed("moto"),
    "syft": _listed("syft"),
}


def _pinned(name: str) -> dict[str, str]:
    """Return the version of each package that a file pins."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[^]]*\])?==(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", WANTED)
def test_it_pins_a_version_that_suits_each_requirement(name: str) -> None:
    pinned = _pinned(name)
    wanted = [Requirement(line) for line in WANTED[name]]
    unsuited = [
        str(one) for one in wanted if not one.specifier.contains(pinned.get(canonicalize_name(one.name), "missing"))
    ]
    assert unsuited == []


@pytest.mark.parametrize("name", WANTED)
def test_each_pin_has_hashes(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    pins = [line for line in re.sub(r"\\\n", "", text).splitlines() if line and not line.lstrip().startswith("#")]
    assert len(pins) == len(_pinned(name))
    assert [pin for pin in pins if "--hash=sha256:" not in pin] == []


def test_imgfs_runs_with_the_versions_that_were_tested() -> None:
    run, dev = _pinned("run"), _pinned("dev")
    assert run == {package: dev[package] for package in run}
