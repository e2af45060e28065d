"""Hints for the user when an engine does not have an image, or cannot save it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.errors import EngineError, ImgfsError, Unavailable
from fusefs.sources import open_image
from fusefs.sources.engine.advice import NotPulled
from tests.support.conformance import SPOOLING
from tests.support.fake_engine import Answer, Engine, Script, fake_engine, json_answer

pytestmark = pytest.mark.usefixtures("in_tmp_path")
FOREIGN = {"Os": "linux", "Architecture": "vax"}


@pytest.fixture(name="engine")
def engine_on_a_socket(tmp_path: Path) -> Iterator[Engine]:
    """An engine that its address says to be podman."""
    with fake_engine(Script(), socket=tmp_path / "podman.sock") as engine:
        yield engine


def refusal(engine: Engine, name: str = "img", **changes: object) -> tuple[type[ImgfsError], str]:
    """Return the class and message of the error for an image of *engine*."""
    with pytest.raises(ImgfsError) as caught:
        open_image(name, SPOOLING._replace(host=engine.host, **changes))  # type: ignore[arg-type]
    return type(caught.value), str(caught.value)


def test_an_image_of_another_platform_that_cannot_be_saved_is_asked_for_by_it(engine: Engine) -> None:
    # docker 28 after docker pull --platform.
    script = engine.script
    script.inspect = json_answer(script.inspected(**FOREIGN))
    script.save = json_answer({"message": "content digest sha256:1: not found"}, 404)
    refused = f"the engine at {engine.host} refuses img: content digest sha256:1: not found"
    hint = "; --platform linux/vax asks for the one that the engine has"
    assert refusal(engine) == (EngineError, refused + hint)
    script.inspect = json_answer(script.inspected())
    assert refusal(engine) == (EngineError, refused)


def test_a_missing_image_of_podman_is_named_as_its_aliases_have_it(engine: Engine, tmp_path: Path) -> None:
    engine.script.inspect = json_answer({"message": "no such image"}, 404)
    (tmp_path / "conf").write_text('[aliases]\n"img" = "quay.example/team/img"\n')
    environment = {"HOME": str(tmp_path), "CONTAINERS_REGISTRIES_CONF": str(tmp_path / "conf")}
    kind, message = refusal(engine, "img:2", environment=environment)
    hint = "podman pull img:2 fetches it, docker://quay.example/team/img:2 needs no pull"
    assert (kind.exit_code, message) == (4, f"no image img:2 in the engine at {engine.host}; {hint}")


def test_a_manifest_list_of_podman_is_not_called_missing(engine: Engine) -> None:
    engine.script.inspect = json_answer({"message": "no such image"}, 404)
    kind, message = refusal(engine)
    assert (kind, message) == (
        NotPulled,
        f"no image img in the engine at {engine.host}; podman pull img fetches it, docker://img needs no pull",
    )
    honest = engine.answer
    engine.answer = lambda path: (  # type: ignore[method-assign]
        Answer(204) if path == "/v4.0.0/libpod/manifests/img/exists" else honest(path)
    )
    hint = "podman manifest inspect img lists its images"
    assert refusal(engine) == (Unavailable, f"img is a manifest list of podman and not an image; {hint}")


def test_a_file_that_is_there_is_named_also_when_no_engine_answers(engine: Engine) -> None:
    Path("p.oci").touch()
    engine.script.inspect = json_answer({"message": "no such image"}, 404)
    assert refusal(engine, "p.oci")[1].endswith("; write ./p.oci for the file of that name")
    with pytest.raises(EngineError, match=r"; or write \./p\.oci for the file of that name$"):
        open_image("p.oci", SPOOLING._replace(host="tcp://127.0.0.1:1"))
