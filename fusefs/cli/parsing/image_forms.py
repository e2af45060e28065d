"""The forms of an IMAGE argument, for help and manual."""

FORMS = (
    ("nginx:1.27  NAME@sha256:…  ID", "in Docker or Podman (docker-daemon:…)"),
    ("docker-archive:PATH[:REF|:@INDEX]", "an archive that docker save wrote"),
    ("oci:DIR[:REF]  oci-archive:PATH[:REF]", "an OCI image layout, or a tar of it"),
    ("./PATH  ../PATH  /PATH  NAME.tar  -", "any of these, detected; - is stdin"),
)
"""Each form, and its meaning."""


def forms() -> str:
    """Return the forms as a list."""
    width = max(len(form) for form, _ in FORMS)
    return "\n".join(["IMAGE is one of:", *(f"  {form:{width}}  {meaning}" for form, meaning in FORMS)])
