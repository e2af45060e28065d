"""Which engine is talked to."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from fusefs.errors import UsageError
from fusefs.sources.engine.endpoint import Endpoint, find_endpoint
from fusefs.sources.tls import Tls

EXPECTING_NAME = "Expecting property name enclosed in double quotes"
DEFAULT = Endpoint("unix:///var/run/docker.sock", None)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home with an empty folder for docker's files."""
    (tmp_path / ".docker").mkdir()
    return tmp_path


def found(home: Path, host: str | None = None, context: str | None = None, **environment: str) -> Endpoint:
    """Return the engine that a user with this *home* gets."""
    return find_endpoint(host, context, {"HOME": str(home)} | environment)


def refusal(home: Path, host: str | None = None, context: str | None = None, **environment: str) -> str:
    """Return the message for what cannot be had, with *home* as ``~``."""
    with pytest.raises(UsageError) as caught:
        found(home, host, context, **environment)
    return str(caught.value).replace(str(home), "~")


def add_context(folder: Path, name: str, document: object, files: Mapping[str, str] | None = None) -> Path:
    """Write a context as the docker command does, and return the folder of its TLS files."""
    key = hashlib.sha256(name.encode()).hexdigest()
    meta = folder / "contexts" / "meta" / key
    meta.mkdir(parents=True)
    data = document if isinstance(document, str) else json.dumps(document)
    (meta / "meta.json").write_text(data)
    tls = folder / "contexts" / "tls" / key / "docker"
    if files is not None:
        tls.mkdir(parents=True)
        for file, text in files.items():
            (tls / file).write_text(text)
    return tls


def docker_context(host: object, **others: object) -> dict[str, object]:
    """Return the document of a context for *host*."""
    return {"Name": "x", "Metadata": {}, "Endpoints": {"docker": {"Host": host, **others}}}


def use(folder: Path, context: object) -> None:
    """Make *context* the current one."""
    (folder / "config.json").write_text(json.dumps({"auths": {}, "currentContext": context}))


def test_without_anything_it_is_the_default_socket(tmp_path: Path) -> None:
    assert find_endpoint(None, None, {"HOME": str(tmp_path / "nobody")}) == DEFAULT


@pytest.mark.parametrize(
    "config", ["{}", '{"currentContext":""}', '{"currentContext":null}', '{"currentContext":"default"}']
)
def test_without_a_current_context_it_is_the_default_socket(home: Path, config: str) -> None:
    (home / ".docker" / "config.json").write_text(config)
    assert found(home) == DEFAULT


def test_the_order_is_option_then_docker_host_then_docker_context_then_the_current_context(home: Path) -> None:
    docker = home / ".docker"
    for name in ("option", "variable", "current"):
        add_context(docker, name, docker_context(f"tcp://{name}:1"))
    use(docker, "current")
    variables = {"DOCKER_HOST": "tcp://variable-host:1", "DOCKER_CONTEXT": "variable"}
    assert [
        found(home, host="tcp://option-host:1", **variables).host,
        found(home, context="option", **variables).host,
        found(home, **variables).host,
        found(home, DOCKER_CONTEXT="variable").host,
        found(home, DOCKER_HOST="", DOCKER_CONTEXT="").host,
    ] == ["tcp://option-host:1", "tcp://option:1", "tcp://variable-host:1", "tcp://variable:1", "tcp://current:1"]


def test_the_context_default_is_what_the_environment_says(home: Path) -> None:
    use(home / ".docker", "missing")
    assert found(home, context="default") == DEFAULT
    assert found(home, DOCKER_CONTEXT="default") == DEFAULT
    assert found(home, context="default", DOCKER_HOST="tcp://a:1") == Endpoint("tcp://a:1", None)


def test_docker_config_names_the_folder_instead(home: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    add_context(elsewhere, "x", docker_context("unix:///x.sock"))
    use(elsewhere, "x")
    assert found(home, DOCKER_CONFIG=str(elsewhere)) == Endpoint("unix:///x.sock", None)


def test_the_current_folder_is_never_looked_at(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_context(tmp_path, "x", docker_context("tcp://wrong:1"))
    monkeypatch.chdir(tmp_path)
    assert refusal(home, context="x") == "no context 'x' in ~/.docker/contexts; docker context ls lists them"


@pytest.mark.parametrize(
    ("host", "endpoint"),
    [
        ("unix:///run/user/0/docker.sock", "unix:///run/user/0/docker.sock"),
        ("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375"),
        ("localhost:2375", "tcp://localhost:2375"),
        ("http://localhost:2375", "http://localhost:2375"),
        ("https://localhost:2376", "https://localhost:2376"),
        ("ssh://user@host", "ssh://user@host"),
    ],
)
def test_a_host_is_taken_in_each_form(home: Path, host: str, endpoint: str) -> None:
    assert found(home, host=host) == Endpoint(endpoint, None)


BAD_HOST = "expected unix:///path, tcp://host:port or ssh://user@host"


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("", f"bad engine host '': {BAD_HOST}"),
        ("tcp://", f"bad engine host 'tcp://': {BAD_HOST}"),
        ("npipe:////./pipe/docker", f"bad engine host 'npipe:////./pipe/docker': {BAD_HOST}"),
        ("file:///x", f"bad engine host 'file:///x': {BAD_HOST}"),
        (
            "unix://x.sock",
            "bad engine host 'unix://x.sock': the socket's path must be absolute, as in unix:///run/docker.sock",
        ),
        ("\x1b://a", f"bad engine host '\\x1b://a': {BAD_HOST}"),
    ],
)
def test_a_bad_host_is_refused(home: Path, host: str, message: str) -> None:
    assert refusal(home, host=host) == message


def test_host_and_context_exclude_each_other(home: Path) -> None:
    assert refusal(home, host="tcp://a:1", context="b") == "--host and --context exclude each other"


@pytest.mark.parametrize("where", ["option", "variable", "current"])
def test_an_unknown_context_is_an_error_wherever_it_is_named(home: Path, where: str) -> None:
    use(home / ".docker", "gone" if where == "current" else "")
    variables = {"DOCKER_CONTEXT": "gone"} if where == "variable" else {}
    message = refusal(home, context="gone" if where == "option" else None, **variables)
    assert message == "no context 'gone' in ~/.docker/contexts; docker context ls lists them"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", f"~/META is not JSON: {EXPECTING_NAME}: line 1 column 2 (char 1)"),
        ("[]", "~/META is not a JSON object"),
        ({}, "the context 'x' has no docker host: ~/META"),
        ({"Endpoints": None}, "the context 'x' has no docker host: ~/META"),
        ({"Endpoints": {"kubernetes": {}}}, "the context 'x' has no docker host: ~/META"),
        (docker_context(""), "the context 'x' has no docker host: ~/META"),
        (docker_context(1), "the context 'x' has no docker host: ~/META"),
        (docker_context("gopher://a"), f"bad engine host 'gopher://a': {BAD_HOST}"),
    ],
)
def test_a_damaged_context_is_an_error(home: Path, document: object, message: str) -> None:
    add_context(home / ".docker", "x", document)
    meta = f".docker/contexts/meta/{hashlib.sha256(b'x').hexdigest()}/meta.json"
    assert refusal(home, context="x") == message.replace("META", meta)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", f"~/.docker/config.json is not JSON: {EXPECTING_NAME}: line 1 column 2 (char 1)"),
        ("null", "~/.docker/config.json is not a JSON object"),
    ],
)
def test_a_damaged_config_is_an_error(home: Path, config: str, message: str) -> None:
    (home / ".docker" / "config.json").write_text(config)
    assert refusal(home) == message


def test_files_that_are_folders_are_an_error(home: Path) -> None:
    (home / ".docker" / "config.json").mkdir()
    assert refusal(home) == "cannot read ~/.docker/config.json: Is a directory"
    add_context(home / ".docker", "x", {})
    meta = home / ".docker/contexts/meta" / hashlib.sha256(b"x").hexdigest() / "meta.json"
    meta.unlink()
    meta.mkdir()
    shown = str(meta).replace(str(home), "~")
    assert refusal(home, context="x") == f"cannot read the context 'x': {shown}: Is a directory"


PAIR = {"cert.pem": "", "key.pem": ""}


def test_a_context_without_tls_files_is_not_encrypted(home: Path) -> None:
    add_context(home / ".docker", "x", docker_context("tcp://a:2375", SkipTLSVerify=False))
    assert found(home, context="x") == Endpoint("tcp://a:2375", None)


@pytest.mark.parametrize("files", [{"ca.pem": ""}, {"ca.pem": "", **PAIR}, PAIR], ids=["ca", "all", "pair"])
def test_the_tls_files_of_a_context_are_used(home: Path, files: Mapping[str, str]) -> None:
    folder = add_context(home / ".docker", "x", docker_context("tcp://a:2376"), files)
    ca = folder / "ca.pem" if "ca.pem" in files else None
    client = (folder / "cert.pem", folder / "key.pem") if "key.pem" in files else None
    assert found(home, context="x") == Endpoint("tcp://a:2376", Tls(ca, client, verify=True))


def test_a_context_may_skip_the_verification_but_not_the_encryption(home: Path) -> None:
    add_context(home / ".docker", "x", docker_context("tcp://a:2376", SkipTLSVerify=True))
    assert found(home, context="x") == Endpoint("tcp://a:2376", Tls(None, None, verify=False))


@pytest.mark.parametrize(("there", "missing"), [("cert.pem", "key.pem"), ("key.pem", "cert.pem")])
def test_a_certificate_needs_its_key(home: Path, there: str, missing: str) -> None:
    folder = add_context(home / ".docker", "x", docker_context("tcp://a:2376"), {there: "", "ca.pem": ""})
    shown = str(folder).replace(str(home), "~")
    assert refusal(home, context="x") == f"TLS needs both cert.pem and key.pem: {shown}/{missing} is missing"


def test_a_context_with_tls_files_is_never_plain_http(home: Path) -> None:
    add_context(home / ".docker", "x", docker_context("http://a:2376"), PAIR)
    assert refusal(home, context="x") == (
        "bad engine host 'http://a:2376': it has TLS files, but http:// is not encrypted; use tcp://"
    )


@pytest.mark.parametrize("host", ["unix:///x.sock", "ssh://user@host"])
def test_a_socket_and_ssh_need_no_tls(home: Path, host: str) -> None:
    assert found(home, host=host, DOCKER_TLS="1") == Endpoint(host, None)
    add_context(home / ".docker", "x", docker_context(host), PAIR)
    assert found(home, context="x") == Endpoint(host, None)


def test_docker_tls_verify_uses_the_files_in_docker_config(home: Path) -> None:
    for name in ("ca.pem", *PAIR):
        (home / ".docker" / name).write_text("")
    docker = home / ".docker"
    everything = Tls(docker / "ca.pem", (docker / "cert.pem", docker / "key.pem"), verify=True)
    assert found(home, host="tcp://a:2376", DOCKER_TLS_VERIFY="1") == Endpoint("tcp://a:2376", everything)
    assert found(home, DOCKER_HOST="tcp://a:2376", DOCKER_TLS_VERIFY="1") == Endpoint("tcp://a:2376", everything)


def test_docker_tls_verify_without_files_trusts_the_system(home: Path) -> None:
    assert found(home, host="tcp://a:2376", DOCKER_TLS_VERIFY="1") == Endpoint(
        "tcp://a:2376", Tls(None, None, verify=True)
    )


def test_docker_tls_encrypts_without_verification(home: Path) -> None:
    assert found(home, host="tcp://a:2376", DOCKER_TLS="1") == Endpoint("tcp://a:2376", Tls(None, None, verify=False))


def test_docker_cert_path_names_the_folder_of_the_files(home: Path, tmp_path: Path) -> None:
    certificates = tmp_path / "certificates"
    certificates.mkdir()
    (certificates / "ca.pem").write_text("")
    variables = {"DOCKER_CERT_PATH": str(certificates), "DOCKER_TLS_VERIFY": "1"}
    assert found(home, host="tcp://a:2376", **variables) == Endpoint(
        "tcp://a:2376", Tls(certificates / "ca.pem", None, verify=True)
    )


@pytest.mark.parametrize("name", ["gone", "x" * 300], ids=["a missing one", "a name that is too long"])
def test_docker_cert_path_without_files_is_an_error(home: Path, name: str) -> None:
    assert refusal(home, host="tcp://a:2376", DOCKER_CERT_PATH=f"{home}/{name}") == (
        f"DOCKER_CERT_PATH names no folder with ca.pem, cert.pem or key.pem: ~/{name}"
    )


def test_tls_files_that_cannot_be_listed_are_an_error(home: Path) -> None:
    folder = add_context(home / ".docker", "x", docker_context("tcp://a:2376"), {})
    folder.rmdir()
    folder.symlink_to(folder)
    shown = str(folder).replace(str(home), "~")
    assert refusal(home, context="x") == (
        f"cannot read the TLS files of the context 'x': {shown}: Too many levels of symbolic links"
    )


def test_a_host_is_safe_to_show() -> None:
    assert Endpoint("tcp://\x1b[2J", None).shown == "tcp://\\x1b[2J"
