"""The IMAGE argument."""

import time

import pytest

from fusefs.errors import UsageError
from fusefs.oci.reference import RegistryReference, check_reference, tag_of, tagged
from fusefs.oci.transport import DOCKER_ARCHIVE, OCI, OCI_ARCHIVE
from fusefs.sources.argument import EngineImage, FileImage, RegistryImage, UrlImage, parse_image, public_name

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "text",
    [
        "nginx",
        "nginx:1.27",
        "library/nginx",
        f"nginx@sha256:{HEX}",
        f"nginx:1.27@sha256:{HEX}",
        "docker.io/library/nginx:latest",
        "localhost:5000/a/b_c__d.e-f---g:V1.0_x-y",
        "[2001:db8::1]:5000/a",
        "EXAMPLE.org/a",
        "example.org:65536/a",
        f"sha256:{HEX}",
        "sha256:0",
        HEX,
        "0123",
        "a" * 255,
    ],
)
def test_a_name_or_an_id_is_an_image_in_the_engine(text: str) -> None:
    assert parse_image(text) == EngineImage(text)
    assert parse_image(f"docker-daemon:{text}") == EngineImage(text)


@pytest.mark.parametrize(
    ("argument", "image"),
    [
        ("/x", FileImage(None, "/x", None)),
        ("./nginx", FileImage(None, "./nginx", None)),
        ("../nginx", FileImage(None, "../nginx", None)),
        ("./a:b@c", FileImage(None, "./a:b@c", None)),
        ("nginx.tar", FileImage(None, "nginx.tar", None)),
        ("Folder/NGINX.TAR", FileImage(None, "Folder/NGINX.TAR", None)),
        ("nginx.tar.gz", FileImage(None, "nginx.tar.gz", None)),
        ("nginx.tgz", FileImage(None, "nginx.tgz", None)),
        ("nginx.tar.zst", FileImage(None, "nginx.tar.zst", None)),
        ("docker-archive:x", FileImage(DOCKER_ARCHIVE, "x", None)),
        ("docker-archive:/a b/x.tar:nginx", FileImage(DOCKER_ARCHIVE, "/a b/x.tar", "nginx")),
        ("docker-archive:x.tar:localhost:5000/a:1", FileImage(DOCKER_ARCHIVE, "x.tar", "localhost:5000/a:1")),
        ("docker-archive:x.tar:@0", FileImage(DOCKER_ARCHIVE, "x.tar", 0)),
        ("docker-archive:x.tar:@12", FileImage(DOCKER_ARCHIVE, "x.tar", 12)),
        ("docker-archive:x.tar:@12345678", FileImage(DOCKER_ARCHIVE, "x.tar", 12345678)),
        ("docker-archive:-:nginx", FileImage(DOCKER_ARCHIVE, "-", "nginx")),
        ("nginx.tzst", FileImage(None, "nginx.tzst", None)),
        ("nginx.tar.xz", FileImage(None, "nginx.tar.xz", None)),
        ("nginx.txz", FileImage(None, "nginx.txz", None)),
        ("nginx.tar.bz2", FileImage(None, "nginx.tar.bz2", None)),
        ("nginx.tbz2", FileImage(None, "nginx.tbz2", None)),
        ("-", FileImage(None, "-", None)),
        ("oci:dir", FileImage(OCI, "dir", None)),
        ("oci:/a b/dir:1.27", FileImage(OCI, "/a b/dir", "1.27")),
        ("oci:dir:docker.io/library/nginx:1", FileImage(OCI, "dir", "docker.io/library/nginx:1")),
        ("oci:dir:Any Text!", FileImage(OCI, "dir", "Any Text!")),
        ("oci:dir:@0", FileImage(OCI, "dir", 0)),
        ("oci-archive:x:@12", FileImage(OCI_ARCHIVE, "x", 12)),
        ("oci:dir:@x", FileImage(OCI, "dir", "@x")),
        ("oci-archive:x", FileImage(OCI_ARCHIVE, "x", None)),
        ("oci-archive:x.tar:a", FileImage(OCI_ARCHIVE, "x.tar", "a")),
        ("oci-archive:-:a", FileImage(OCI_ARCHIVE, "-", "a")),
    ],
)
def test_a_path_is_an_image_in_a_file(argument: str, image: FileImage) -> None:
    assert parse_image(argument) == image


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("nginx", ("docker.io", "library/nginx", "latest", "")),
        ("nginx:1.27", ("docker.io", "library/nginx", "1.27", "")),
        ("team/app", ("docker.io", "team/app", "latest", "")),
        ("index.docker.io/nginx", ("docker.io", "library/nginx", "latest", "")),
        ("localhost/nginx", ("localhost", "nginx", "latest", "")),
        ("sha256:0123", ("docker.io", "library/sha256", "0123", "")),
        (f"{HEX}:1", ("docker.io", f"library/{HEX}", "1", "")),
        (HEX[1:], ("docker.io", f"library/{HEX[1:]}", "latest", "")),
        ("localhost:5000/nginx:1", ("localhost:5000", "nginx", "1", "")),
        ("example.org/a/b/c", ("example.org", "a/b/c", "latest", "")),
        ("[::1]:5000/a", ("[::1]:5000", "a", "latest", "")),
        (f"nginx@sha256:{HEX}", ("docker.io", "library/nginx", "", f"sha256:{HEX}")),
        (f"nginx:1@sha256:{HEX}", ("docker.io", "library/nginx", "1", f"sha256:{HEX}")),
    ],
)
def test_a_name_after_docker_is_an_image_in_a_registry(name: str, reference: tuple[str, str, str, str]) -> None:
    assert parse_image(f"docker://{name}") == RegistryImage(RegistryReference(*reference))


@pytest.mark.parametrize(
    ("argument", "image"),
    [
        ("https://h/a.tar", UrlImage(None, "https://h/a.tar", None)),
        ("HTTP://h:80/a:b?c:d", UrlImage(None, "http://h:80/a:b?c:d", None)),
        ("docker-archive:https://h:80/a.tar", UrlImage(DOCKER_ARCHIVE, "https://h:80/a.tar", None)),
        ("docker-archive:https://h/a.tar:b:1", UrlImage(DOCKER_ARCHIVE, "https://h/a.tar", "b:1")),
        ("docker-archive:https://[::1]:80/a.tar?x=y:@3", UrlImage(DOCKER_ARCHIVE, "https://[::1]:80/a.tar?x=y", 3)),
        ("oci-archive:http://h/a:Any Text", UrlImage(OCI_ARCHIVE, "http://h/a", "Any Text")),
    ],
)
def test_a_url_is_an_image_in_an_archive(argument: str, image: UrlImage) -> None:
    assert parse_image(argument) == image


A_PART, CONTROL = "with an empty part between slashes, or . or .. as one", "with control characters"


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        *((key, A_PART) for key in ("/a.tar", "%2Fa.tar", "a//b", "a/%2fb", "a/", "a%2F", ".", "%2E%2e/a", "a/./b")),
        *((key, CONTROL) for key in ("a%00", "%0A", "a/%1f", "%7F")),
        ("a%FF", "that is not UTF-8"),
    ],
)
@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_a_key_that_obstore_alters_or_refuses_is_not_asked_for(scheme: str, key: str, rule: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_image(f"{scheme}://b/{key}")
    assert str(caught.value) == f"bad URL '{scheme}://b/{key}': imgfs cannot ask for a key {rule}"


def test_a_url_of_a_server_may_have_empty_parts() -> None:
    assert parse_image("https://h//a/%2Fb/") == UrlImage(None, "https://h//a/%2Fb/", None)


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("nginx?x", "nginx?x"),
        ("https://h/a.tar", "https://h/a.tar"),
        ("https://h/a.tar?s=a:b", "https://h/a.tar?…"),
        ("docker-archive:https://h/a.tar?s=a:b:1", "docker-archive:https://h/a.tar?…:b:1"),
    ],
)
def test_the_query_of_a_url_is_not_public(argument: str, shown: str) -> None:
    assert public_name(argument) == shown


@pytest.mark.parametrize("argument", ["docker", "docker:27", "docker:dind@sha256:" + HEX])
def test_the_image_called_docker_is_in_the_engine(argument: str) -> None:
    assert parse_image(argument) == EngineImage(argument)


@pytest.mark.parametrize("argument", ["nginx.tar:1", "tar", "a/b", "docker-archive", "x.tar.lz4"])
def test_what_only_looks_a_little_like_a_path_is_a_name(argument: str) -> None:
    assert parse_image(argument) == EngineImage(argument)


PARTS = "each part of a name begins and ends with a letter or digit, and has one of . _ __ - in between"
A_TAG = "a tag has up to 128 letters, digits and . _ -, and none of . - at first"
A_DIGEST = "a digest is as sha256:… with 64 hexadecimal digits"
A_PORT = "a port is a number from 1 to 65535"
A_PATH = "no name has ':/', which begins a path where IMAGE:/PATH is possible"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("", "bad reference '': it is empty"),
        ("docker-daemon:", "bad reference '': it is empty"),
        ("Nginx", "bad reference 'Nginx': repository names are lower case"),
        ("a//b", f"bad reference 'a//b': {PARTS}"),
        ("nginx:", f"bad reference 'nginx:': {A_TAG}"),
        ("nginx:-a", f"bad reference 'nginx:-a': {A_TAG}"),
        (f"nginx:{'a' * 129}", f"bad reference 'nginx:{'a' * 129}': {A_TAG}"),
        ("nginx@sha256:abc", f"bad reference 'nginx@sha256:abc': {A_DIGEST}"),
        (f"docker://a/b@md5:{'a' * 32}", f"bad reference 'a/b@md5:{'a' * 32}': unsupported digest algorithm 'md5'"),
        (f"a@sha256:{'A' * 64}", f"bad reference 'a@sha256:{'A' * 64}': malformed sha256 digest 'sha256:{'A' * 64}'"),
        ("nginx\n", "bad reference 'nginx\\n': a name has no '\\n'"),
        ("\x1b[2J", "bad reference '\\x1b[2J': a name has no '\\x1b'"),
        ("-nginx", f"bad reference '-nginx': {PARTS}"),
        ("a..b", f"bad reference 'a..b': {PARTS}"),
        ("docker://", "bad reference '': it is empty"),
        ("docker://Nginx", "bad reference 'Nginx': repository names are lower case"),
        (f"docker://{HEX}", f"bad reference '{HEX}': it is an image ID, which only engines know"),
        ("docker://user:secret@host/a", "bad reference 'user:***@host/a': it must not contain a user"),
        ("docker://user:secret@host", f"bad reference 'user:***@host': {A_DIGEST}"),
        ("docker://user:secret@shanghai.example.com", f"bad reference 'user:***@shanghai.example.com': {A_DIGEST}"),
        ("docker://user:se@sha256:1@host", f"bad reference 'user:***@host': {A_DIGEST}"),
        ("docker://h:5000/a@sha256:abc", f"bad reference 'h:5000/a@sha256:abc': {A_DIGEST}"),
        ("docker://nginx:/etc", f"bad reference 'nginx:/etc': {A_PATH}"),
        ("docker://h:65536/a", f"bad reference 'h:65536/a': {A_PORT}"),
        ("docker://h:0/a:1", f"bad reference 'h:0/a:1': {A_PORT}"),
        (f"docker://[::1]:{'9' * 99}/a/b", f"bad reference '[::1]:{'9' * 99}/a/b': {A_PORT}"),
        ("a" * 256, "bad reference: the name has 256 characters, more than 255"),
        (
            "ftp://example.org/nginx",
            "bad reference 'ftp://example.org/nginx': a registry's image is docker://[HOST/]NAME[:TAG][@DIGEST]",
        ),
        ("https://", "bad URL 'https://': the host is missing, as in https://HOST/PATH"),
        ("https:///a.tar", "bad URL 'https:///a.tar': the host is missing, as in https://HOST/PATH"),
        ("http://:80/a.tar", "bad URL 'http://:80/a.tar': the host is missing, as in http://HOST/PATH"),
        ("docker-archive:https:///a.tar", "bad URL 'https:///a.tar': the host is missing, as in https://HOST/PATH"),
        ("https://a..b/a.tar", "bad URL 'https://a..b/a.tar': no host can have that name"),
        (f"http://{'a' * 64}.b:80/a", f"bad URL 'http://{'a' * 64}.b:80/a': no host can have that name"),
        ("https://h/a b.tar", "bad URL 'https://h/a b.tar': spell characters outside of ASCII, and # and \\, as %XX"),
        (
            "https://h/a?secret#x",
            "bad URL 'https://h/a?…': spell characters outside of ASCII, and # and \\, as %XX",
        ),
        ("https://h/\n.tar", "bad URL 'https://h/\\n.tar': spell characters outside of ASCII, and # and \\, as %XX"),
        ("https://h:x/a.tar", "bad URL 'https://h:x/a.tar': Port could not be cast to integer value as 'x'"),
        ("https://h:65536/a.tar", "bad URL 'https://h:65536/a.tar': Port out of range 0-65535"),
        ("https://h:0/a.tar", "bad URL 'https://h:0/a.tar': Port out of range 1-65535"),
        ("https://[::1/a.tar", "bad URL 'https://[::1/a.tar': Invalid IPv6 URL"),
        ("https://someone:secret@h/a.tar", "bad URL 'https://someone:***@h/a.tar': it must not contain a user"),
        ("https://someone:sec/ret@h/a.tar", "bad URL 'https://someone:***@h/a.tar': it must not contain a user"),
        ("s3://images", "bad URL 's3://images': the key is missing, as in s3://BUCKET/KEY"),
        ("S3://images/", "bad URL 'S3://images/': the key is missing, as in s3://BUCKET/KEY"),
        ("gs://images/?secret", "bad URL 'gs://images/?…': the key is missing, as in gs://BUCKET/KEY"),
        ("docker-archive:az://images/:a", "bad URL 'az://images/': the key is missing, as in az://CONTAINER/KEY"),
        ("oci:https://h/a.tar", "bad reference 'oci:https://h/a.tar': a URL names an archive"),
        (
            "docker-archive:https://h/a.tar:",
            "bad reference 'docker-archive:https://h/a.tar:': expected docker-archive:PATH[:REF|:@INDEX]",
        ),
        (
            "containers-storage:nginx",
            (
                "bad reference 'containers-storage:nginx': containers-storage: is not read; "
                "podman save it, or start podman's service and give its socket to --host"
            ),
        ),
        (
            "dir:/tmp/x",
            "bad reference 'dir:/tmp/x': dir: is not read; skopeo copy it to oci:DIR, then give that",
        ),
        (
            "docker-archive:",
            "bad reference 'docker-archive:': expected docker-archive:PATH[:REF|:@INDEX]",
        ),
        (
            "docker-archive:x:",
            "bad reference 'docker-archive:x:': expected docker-archive:PATH[:REF|:@INDEX]",
        ),
        (
            "docker-archive::nginx",
            "bad reference 'docker-archive::nginx': expected docker-archive:PATH[:REF|:@INDEX]",
        ),
        ("docker-archive:x:A", "bad reference 'A': repository names are lower case"),
        ("docker-archive:x:@", "bad reference: '@' is no index; expected @0, @1, …"),
        ("docker-archive:x:@-1", "bad reference: '@-1' is no index; expected @0, @1, …"),
        ("docker-archive:x:@²", "bad reference: '@²' is no index; expected @0, @1, …"),
        ("oci:", "bad reference 'oci:': expected oci:DIR[:REF]"),
        ("oci:dir:", "bad reference 'oci:dir:': expected oci:DIR[:REF]"),
        ("oci::1", "bad reference 'oci::1': expected oci:DIR[:REF]"),
        ("oci-archive:x.tar:", "bad reference 'oci-archive:x.tar:': expected oci-archive:PATH[:REF]"),
    ],
)
def test_what_names_no_image_is_refused(argument: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_image(argument)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1", "docker.io/library/nginx:1"),
        ("library/nginx", "docker.io/library/nginx:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("docker.io/a/b:1", "docker.io/a/b:1"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
        ("a/b", "docker.io/a/b:latest"),
        ("localhost/a", "localhost/a:latest"),
        ("HOST/a", "HOST/a:latest"),
        ("host:5000/a:1", "host:5000/a:1"),
        ("quay.io/a", "quay.io/a:latest"),
        (f"a@sha256:{HEX}", f"docker.io/library/a@sha256:{HEX}"),
        (f"a:1@sha256:{HEX}", f"docker.io/library/a:1@sha256:{HEX}"),
        ("NOT A NAME", "NOT A NAME"),
        ("", ""),
    ],
)
def test_a_name_is_compared_in_its_full_form(reference: str, full: str) -> None:
    # As github.com/distribution/reference, ParseNormalizedNamed and TagNameOnly.
    assert tagged(reference) == full


@pytest.mark.parametrize(
    ("reference", "tag"),
    [
        ("nginx:1.27", "1.27"),
        ("host:5000/a:1", "1"),
        (f"a:1@sha256:{HEX}", "1"),
        ("nginx", ""),
        ("host:5000/a", ""),
        (f"a@sha256:{HEX}", ""),
        (f"sha256:{HEX}", ""),
        ("sha256:0", ""),
        (HEX, ""),
        ("NOT A NAME:1", ""),
        ("", ""),
    ],
)
def test_the_tag_of_a_name_is_what_it_says_and_an_id_has_none(reference: str, tag: str) -> None:
    assert tag_of(reference) == tag


@pytest.mark.parametrize(
    "text",
    ["a" * 10**5 + "!", "a-" * 50000, "a." * 50000, "a/" * 50000, "a__" * 30000 + "!", "a:" * 50000, "-" * 10**5],
)
def test_a_hostile_name_takes_no_time(text: str) -> None:
    before = time.process_time()
    assert tagged(text) == text
    with pytest.raises(UsageError):
        check_reference(text)
    assert time.process_time() - before < 1
