"""What an IMAGE argument may be, as help and manual say it."""

FORMS = (
    ("nginx:1.27  NAME@sha256:…  ID", "in Docker or Podman (docker-daemon:…)"),
    ("docker-archive:PATH[:REF|:@INDEX]", "in what docker save wrote"),
    ("oci:DIR[:REF]  oci-archive:PATH[:REF]", "in an OCI image layout, tarred or not"),
    ("./PATH  ../PATH  /PATH  NAME.tar  -", "any of these, .tar.gz too; - is a pipe"),
)
"""Each form, and what is meant by it."""


def forms() -> str:
    """Return the forms as a list."""
    width = max(len(form) for form, _ in FORMS)
    return "\n".join(["IMAGE is one of:", *(f"  {form:{width}}  {meaning}" for form, meaning in FORMS)])
