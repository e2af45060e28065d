"""Which engine is meant: hosts, TLS, and contexts as the docker command makes them."""

import hashlib
import importlib.util
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builders import Archive
from tests.support.certificates import Authority
from tests.support.engines import RealEngine
from tests.support.fake_engine import Engine, fake_engine
from tests.support.mounts import Bench, Finished, tree
from tests.support.real_image import SMALL
from tests.support.requirements import need


def _is_the_small_image(mountpoint: Path, engine: RealEngine) -> bool:
    config = (mountpoint / "config").read_bytes()
    identity: str = engine.inspect(SMALL)["Id"]
    return identity == f"sha256:{hashlib.sha256(config).hexdigest()}"


def _client(engine: RealEngine) -> Path:
    assert engine.authority is not None
    return engine.authority.folder / "client"


def _create_context(imgfs: Bench, name: str, endpoint: str) -> None:
    need("docker")
    command = ["docker", "context", "create", name, "--docker", endpoint]
    subprocess.run(command, env=imgfs.environment, check=True, capture_output=True)


def _context_with_tls(imgfs: Bench, engine: RealEngine, name: str = "secure") -> None:
    files = _client(engine)
    endpoint = f"host={engine.tls_host},ca={files}/ca.pem,cert={files}/cert.pem,key={files}/key.pem"
    _create_context(imgfs, name, endpoint)


def test_tls_from_the_environment(imgfs: Bench, docker_engine: RealEngine) -> None:
    imgfs.environment |= {
        "DOCKER_HOST": docker_engine.tls_host,
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(_client(docker_engine)),
    }
    assert _is_the_small_image(imgfs.mount(SMALL), docker_engine)


def test_tls_files_in_the_docker_folder(imgfs: Bench, docker_engine: RealEngine) -> None:
    shutil.copytree(_client(docker_engine), imgfs.folder / "home" / ".docker")
    imgfs.environment["DOCKER_TLS_VERIFY"] = "1"
    assert _is_the_small_image(imgfs.mount(SMALL, "-H", docker_engine.tls_host), docker_engine)


def test_a_context_with_tls_files(imgfs: Bench, docker_engine: RealEngine) -> None:
    _context_with_tls(imgfs, docker_engine)
    assert _is_the_small_image(imgfs.mount(SMALL, "--context", "secure"), docker_engine)


def test_a_context_from_the_environment(imgfs: Bench, docker_engine: RealEngine) -> None:
    _context_with_tls(imgfs, docker_engine)
    imgfs.environment["DOCKER_CONTEXT"] = "secure"
    assert _is_the_small_image(imgfs.mount(SMALL), docker_engine)


def test_the_current_context(imgfs: Bench, docker_engine: RealEngine) -> None:
    _create_context(imgfs, "plain", f"host={docker_engine.host}")
    subprocess.run(["docker", "context", "use", "plain"], env=imgfs.environment, check=True, capture_output=True)
    assert _is_the_small_image(imgfs.mount(SMALL), docker_engine)


def test_docker_host_counts_before_the_current_context(imgfs: Bench, docker_engine: RealEngine) -> None:
    _create_context(imgfs, "dead", "host=unix:///nowhere.sock")
    subprocess.run(["docker", "context", "use", "dead"], env=imgfs.environment, check=True, capture_output=True)
    imgfs.environment["DOCKER_HOST"] = docker_engine.host
    assert _is_the_small_image(imgfs.mount(SMALL), docker_engine)


def test_an_engine_that_wants_a_certificate_refuses_us_without_one(imgfs: Bench, docker_engine: RealEngine) -> None:
    files = _client(docker_engine)
    _create_context(imgfs, "half", f"host={docker_engine.tls_host},ca={files}/ca.pem")
    done = imgfs.run("mount", "--log-file", imgfs.log, "--context", "half", SMALL, imgfs.mountpoint())
    assert (done.status, done.out, done.err.count("\n")) == (3, "", 1)
    assert done.err.startswith(f"imgfs: cannot reach an engine at {docker_engine.tls_host}: ")
    assert "certificate" in done.err


def test_an_engine_with_tls_is_not_talked_to_in_the_clear(imgfs: Bench, docker_engine: RealEngine) -> None:
    done = imgfs.run("mount", "--log-file", imgfs.log, "-H", docker_engine.tls_host, SMALL, imgfs.mountpoint())
    assert (done.status, done.out, done.err.count("\n")) == (3, "", 1)
    assert docker_engine.tls_host in done.err


def test_a_certificate_of_an_unknown_authority_is_not_trusted(
    imgfs: Bench, docker_engine: RealEngine, tmp_path: Path
) -> None:
    Authority(tmp_path / "tls").issue("client", server=False)
    imgfs.environment |= {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path / "tls" / "client")}
    done = imgfs.run("mount", "--log-file", imgfs.log, "-H", docker_engine.tls_host, SMALL, imgfs.mountpoint())
    assert (done.status, done.out, done.err.count("\n")) == (3, "", 1)
    assert done.err.startswith(f"imgfs: cannot reach an engine at {docker_engine.tls_host}: ")
    assert "certificate verify failed" in done.err


@pytest.fixture(name="authority")
def private_authority(tmp_path: Path) -> Authority:
    """Give an authority that no system knows."""
    return Authority(tmp_path / "tls")


@pytest.fixture(name="tls_engine")
def fake_engine_with_tls(authority: Authority) -> Iterator[Engine]:
    """Give an engine that asks for no certificate."""
    with fake_engine(tls=authority.issue("server", server=True)) as engine:
        yield engine


def test_a_context_with_only_ca_pem_is_encrypted(imgfs: Bench, tls_engine: Engine, authority: Authority) -> None:
    _create_context(imgfs, "ca", f"host={tls_engine.host},ca={authority.ca}")
    assert tree(imgfs.mount("img", "--context", "ca"))["config"] == Archive().config_data


def test_bundles_in_the_environment_do_not_replace_the_engines_own_authority(
    imgfs: Bench, tls_engine: Engine, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other").ca
    imgfs.environment |= {"REQUESTS_CA_BUNDLE": str(other), "CURL_CA_BUNDLE": str(other), "SSL_CERT_FILE": str(other)}
    _create_context(imgfs, "ca", f"host={tls_engine.host},ca={authority.ca}")
    assert tree(imgfs.mount("img", "--context", "ca"))["config"] == Archive().config_data


def test_a_context_with_only_ca_pem_never_falls_back_to_clear_text(imgfs: Bench, authority: Authority) -> None:
    with fake_engine() as engine:
        _create_context(imgfs, "ca", f"host={engine.host},ca={authority.ca}")
        done = imgfs.run("mount", "--log-file", imgfs.log, "--context", "ca", "img", imgfs.mountpoint())
        assert (done.status, done.out, done.err.count("\n")) == (3, "", 1)
        assert done.err.startswith(f"imgfs: cannot reach an engine at {engine.host}: ")
        assert engine.asked == []


def test_a_context_that_skips_verification_trusts_anybody(imgfs: Bench, tls_engine: Engine) -> None:
    _create_context(imgfs, "blind", f"host={tls_engine.host},skip-tls-verify=true")
    assert tree(imgfs.mount("img", "--context", "blind"))["config"] == Archive().config_data


def test_without_a_context_nobody_is_trusted_blindly(imgfs: Bench, tls_engine: Engine) -> None:
    imgfs.environment["DOCKER_TLS_VERIFY"] = "1"
    done = imgfs.run("mount", "--log-file", imgfs.log, "-H", tls_engine.host, "img", imgfs.mountpoint())
    assert (done.status, done.out, done.err.count("\n")) == (3, "", 1)
    assert "certificate verify failed" in done.err


def test_an_unknown_context_is_an_error_and_not_the_default(imgfs: Bench, docker_engine: RealEngine) -> None:
    imgfs.environment["DOCKER_HOST"] = docker_engine.host
    done = imgfs.run("mount", "--log-file", imgfs.log, "--context", "typo", SMALL, imgfs.mountpoint())
    said = f"no context 'typo' in {imgfs.folder}/home/.docker/contexts; docker context ls lists them"
    assert done == Finished(2, "", f"imgfs: {said}\n")


def test_contexts_of_the_current_directory_do_not_count(imgfs: Bench, docker_engine: RealEngine) -> None:
    _create_context(imgfs, "here", f"host={docker_engine.host}")
    (imgfs.folder / "home" / ".docker" / "contexts").rename(imgfs.folder / "contexts")
    done = imgfs.run("mount", "--log-file", imgfs.log, "--context", "here", SMALL, imgfs.mountpoint())
    said = f"no context 'here' in {imgfs.folder}/home/.docker/contexts; docker context ls lists them"
    assert done == Finished(2, "", f"imgfs: {said}\n")


def test_host_and_context_exclude_each_other(imgfs: Bench) -> None:
    done = imgfs.run("mount", "--host", "unix:///x", "--context", "y", "img", imgfs.mountpoint())
    assert done == Finished(2, "", "imgfs: --host and --context exclude each other\n")


def test_a_damaged_context_is_named(imgfs: Bench, docker_engine: RealEngine) -> None:
    _create_context(imgfs, "bad", f"host={docker_engine.host}")
    (path,) = (imgfs.folder / "home" / ".docker" / "contexts" / "meta").glob("*/meta.json")
    path.write_text(json.dumps({"Endpoints": {}}))
    done = imgfs.run("mount", "--context", "bad", "--log-file", imgfs.log, "img", imgfs.mountpoint())
    assert done == Finished(2, "", f"imgfs: the context 'bad' has no docker host: {path}\n")


@pytest.mark.parametrize("host", ["ftp://x", "unix://relative", "unix://", "tcp://", "fd://"])
def test_a_host_that_makes_no_sense_is_a_usage_error(imgfs: Bench, host: str) -> None:
    done = imgfs.run("mount", "-H", host, "--log-file", imgfs.log, "img", imgfs.mountpoint())
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"imgfs: bad engine host {host!r}: ")


@pytest.mark.parametrize(
    "host", ["tcp://127.0.0.1:port", "tcp://127.0.0.1:99999", "tcp://[::1", "tcp://:0", "tcp://a b"]
)
def test_a_host_that_nobody_can_reach_is_an_error_in_one_line(imgfs: Bench, host: str) -> None:
    done = imgfs.run("mount", "-H", host, "--log-file", imgfs.log, "img", imgfs.mountpoint())
    assert (done.status in (2, 3), done.out, done.err.count("\n")) == (True, "", 1)
    assert done.err.startswith("imgfs: ")
    assert host in done.err


def test_ssh_without_the_extra_says_what_to_install(imgfs: Bench) -> None:
    if importlib.util.find_spec("paramiko"):
        pytest.skip("paramiko is installed")
    done = imgfs.run("mount", "-H", "ssh://u@h", "--log-file", imgfs.log, "img", imgfs.mountpoint())
    hint = "pipx install '.[ssh]' in a checkout of imgfs installs an imgfs with it"
    assert done == Finished(3, "", f"imgfs: ssh://u@h: ssh needs the Python package paramiko; {hint}\n")
