"""The IMAGE argument."""

import time

import pytest

from fusefs.errors import ImgfsError, Unsupported, UsageError
from fusefs.sources.reference import ArchiveImage, EngineImage, check_reference, parse_image, tagged

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
        ("/x", ArchiveImage("/x", None)),
        ("./nginx", ArchiveImage("./nginx", None)),
        ("../nginx", ArchiveImage("../nginx", None)),
        ("./a:b@c", ArchiveImage("./a:b@c", None)),
        ("nginx.tar", ArchiveImage("nginx.tar", None)),
        ("Folder/NGINX.TAR", ArchiveImage("Folder/NGINX.TAR", None)),
        ("nginx.tar.gz", ArchiveImage("nginx.tar.gz", None)),
        ("nginx.tgz", ArchiveImage("nginx.tgz", None)),
        ("nginx.tar.zst", ArchiveImage("nginx.tar.zst", None)),
        ("docker-archive:x", ArchiveImage("x", None)),
        ("docker-archive:/a b/x.tar:nginx", ArchiveImage("/a b/x.tar", "nginx")),
        ("docker-archive:x.tar:localhost:5000/a:1", ArchiveImage("x.tar", "localhost:5000/a:1")),
        ("docker-archive:x.tar:@0", ArchiveImage("x.tar", 0)),
        ("docker-archive:x.tar:@12", ArchiveImage("x.tar", 12)),
        ("docker-archive:x.tar:@12345678", ArchiveImage("x.tar", 12345678)),
    ],
)
def test_a_path_is_an_image_in_a_file(argument: str, image: ArchiveImage) -> None:
    assert parse_image(argument) == image


@pytest.mark.parametrize("argument", ["nginx.tar:1", "tar", "a/b", "docker-archive", "x.tar.lz4"])
def test_what_only_looks_a_little_like_a_path_is_a_name(argument: str) -> None:
    assert parse_image(argument) == EngineImage(argument)


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        ("", UsageError, "bad reference ''"),
        ("docker-daemon:", UsageError, "bad reference ''"),
        ("Nginx", UsageError, "bad reference 'Nginx': repository names are lower case"),
        ("a//b", UsageError, "bad reference 'a//b'"),
        ("nginx:", UsageError, "bad reference 'nginx:'"),
        ("nginx:-a", UsageError, "bad reference 'nginx:-a'"),
        (f"nginx:{'a' * 129}", UsageError, f"bad reference 'nginx:{'a' * 129}'"),
        ("nginx@sha256:abc", UsageError, "bad reference 'nginx@sha256:abc'"),
        ("nginx\n", UsageError, "bad reference 'nginx\\\\n'"),
        ("\x1b[2J", UsageError, "bad reference '\\\\x1b[2J'"),
        ("-nginx", UsageError, "bad reference '-nginx'"),
        ("a..b", UsageError, "bad reference 'a..b'"),
        ("a" * 256, UsageError, "bad reference: the name has 256 characters, more than 255"),
        (
            "docker://nginx",
            UsageError,
            "bad reference 'docker://nginx': imgfs reads no registry; docker pull it, then give its name",
        ),
        (
            "docker-archive:",
            UsageError,
            "bad reference 'docker-archive:': expected docker-archive:PATH[:REF|:@INDEX]",
        ),
        (
            "docker-archive:x:",
            UsageError,
            "bad reference 'docker-archive:x:': expected docker-archive:PATH[:REF|:@INDEX]",
        ),
        (
            "docker-archive::nginx",
            UsageError,
            "bad reference 'docker-archive::nginx': expected docker-archive:PATH[:REF|:@INDEX]",
        ),
        ("docker-archive:x:A", UsageError, "bad reference 'A': repository names are lower case"),
        ("docker-archive:x:@", UsageError, "bad reference: '@' is no index; expected @0, @1, …"),
        ("docker-archive:x:@-1", UsageError, "bad reference: '@-1' is no index; expected @0, @1, …"),
        ("docker-archive:x:@²", UsageError, "bad reference: '@²' is no index; expected @0, @1, …"),
        ("-", Unsupported, "reading an image from a pipe is not supported yet; save it to a file first"),
        ("oci:dir", Unsupported, "oci:dir: OCI image layouts are not supported yet"),
        ("oci-archive:x.tar:a", Unsupported, "oci-archive:x.tar:a: OCI image layouts are not supported yet"),
    ],
)
def test_what_names_no_image_is_refused(argument: str, error: type[ImgfsError], message: str) -> None:
    with pytest.raises(ImgfsError) as caught:
        parse_image(argument)
    assert (type(caught.value), str(caught.value)) == (error, message)


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
    "text",
    ["a" * 10**5 + "!", "a-" * 50000, "a." * 50000, "a/" * 50000, "a__" * 30000 + "!", "a:" * 50000, "-" * 10**5],
)
def test_a_hostile_name_takes_no_time(text: str) -> None:
    before = time.process_time()
    assert tagged(text) == text
    with pytest.raises(UsageError):
        check_reference(text)
    assert time.process_time() - before < 1
