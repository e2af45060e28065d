"""The forms of an IMAGE argument, for help and manual."""

from fusefs.oci.transport import DOCKER_ARCHIVE, DOCKER_DAEMON, OCI, OCI_ARCHIVE, REGISTRY

FORMS = (
    ("nginx:1.27  NAME@sha256:…  ID", f"in Docker or Podman ({DOCKER_DAEMON.prefix}…)"),
    (REGISTRY.grammar, f"{REGISTRY.meaning}, as for skopeo"),
    (DOCKER_ARCHIVE.grammar, f"in {DOCKER_ARCHIVE.meaning}"),
    (f"{OCI.grammar}  {OCI_ARCHIVE.grammar}", f"in {OCI.meaning} or a tar of one"),
    ("./PATH  /PATH  NAME.tar  -", "either of these, detected; - is stdin"),
    ("https://…  s3://…  gs://…  az://…", "an archive on the web or in a bucket"),
)
"""Each form and its meaning."""


def forms() -> str:
    """Return the forms as a list."""
    width = max(len(form) for form, _ in FORMS)
    return "\n".join(["IMAGE is one of:", *(f"  {form:{width}}  {meaning}" for form, meaning in FORMS)])
