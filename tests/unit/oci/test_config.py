"""What an image config tells people, however odd it is."""

import json
from typing import Any

import pytest

from fusefs.oci.config import Details, Healthcheck, Step, parse_details
from tests.support.builders import CREATED, CREATED_NS


def details(**document: Any) -> Details:
    """Return what an image config with these keys tells."""
    return parse_details(json.dumps(document).encode())


def test_everything_that_is_stated_is_told() -> None:
    config = {
        "User": "www",
        "WorkingDir": "/srv",
        "Entrypoint": ["/e", "a b"],
        "Cmd": ["-c"],
        "Env": ["A=b=c", "D="],
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Volumes": {"/data": {}},
        "Labels": {"a": "b"},
        "StopSignal": "SIGQUIT",
        "Shell": ["/bin/ash", "-c"],
        "OnBuild": ["COPY . /"],
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 30_000_000_000, "Retries": 3, "Timeout": "5s"},
    }
    history = [{"created": CREATED, "created_by": "ADD x", "comment": "c", "author": "a"}, {"empty_layer": True}]
    assert details(author="me", config=config, history=history) == Details(
        author="me",
        user="www",
        working_dir="/srv",
        entrypoint=("/e", "a b"),
        command=("-c",),
        environment=("A=b=c", "D="),
        ports=("80/tcp", "53/udp"),
        volumes=("/data",),
        labels={"a": "b"},
        stop_signal="SIGQUIT",
        shell=("/bin/ash", "-c"),
        on_build=("COPY . /",),
        healthcheck=Healthcheck(("CMD", "x"), 30_000_000_000, 0, 0, 0, 3),
        history=(Step(CREATED_NS, "ADD x", "a", "c", empty=False), Step(0, "", "", "", empty=True)),
    )


@pytest.mark.parametrize("value", [None, 1, "text", [], [1, None, []], {"a": 1}, {"a": [[]]}, True, 1e300])
def test_what_makes_no_sense_is_left_out(value: Any) -> None:
    keys = ("User", "WorkingDir", "Entrypoint", "Cmd", "Env", "ExposedPorts", "Volumes", "Labels", "StopSignal")
    found = details(author=value, config=dict.fromkeys(keys, value), history=value)
    for told in (found.author, found.user, found.working_dir, found.stop_signal):
        assert told in ("", "text")
    assert found.entrypoint == found.command == found.environment == (("text",) if value == "text" else ())
    assert (found.labels, found.history) == ({}, ())
    assert details(config=value, history=[value, {"created_by": value, "created": value}]).history[-1:] == (
        Step(0, value if isinstance(value, str) else "", "", "", empty=False),
    )


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"{", b"[" * 100_000, b"null"])
def test_what_is_no_image_config_tells_nothing(data: bytes) -> None:
    assert parse_details(data) == Details()


def test_each_layer_has_the_step_that_made_it() -> None:
    history = [{"created_by": "a"}, {"created_by": "b", "empty_layer": True}, {"created_by": "c"}]
    found = details(history=history)
    assert [step and step.created_by for step in found.steps(2)] == ["a", "c"]


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_a_history_of_another_number_of_layers_says_nothing_of_them(layers: int) -> None:
    assert details(history=[{"created_by": "a"}, {"created_by": "b"}]).steps(layers) == (None,) * layers


def test_names_of_fields_count_in_any_case_and_names_of_labels_do_not() -> None:
    config = {"user": "u", "cmd": ["c"], "ENV": ["A=b"], "labels": {"Cmd": "1", "cmd": "2"}}
    found = details(Config=config, History=[{"Created_By": "RUN x", "emptyLayer": True}])
    assert (found.user, found.command, found.environment) == ("u", ("c",), ("A=b",))
    assert found.labels == {"Cmd": "1", "cmd": "2"}
    assert found.history == (Step(0, "RUN x", "", "", empty=False),)


@pytest.mark.parametrize(
    ("stated", "counted"),
    [((1 << 63) - 1, (1 << 63) - 1), (1 << 63, 0), (10**400, 0), (-(1 << 63), -(1 << 63)), (-(1 << 63) - 1, 0)],
    ids=range(5),
)
def test_a_number_that_go_cannot_hold_counts_as_none(stated: int, counted: int) -> None:
    check = details(config={"Healthcheck": {"Interval": stated}}).healthcheck
    assert check is not None
    assert check.interval_ns == counted
