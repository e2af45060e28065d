"""Small image layouts whose images are told apart by their layers, and the layers that a choice shows."""

from fusefs.oci.platform import Platform
from tests.support.builders import LAYERS
from tests.support.conformance import SETTINGS, check_image, opened, stored
from tests.support.layouts import Layout

A, B, C = LAYERS[:1], LAYERS[1:2], LAYERS[2:3]
"""The layers of images that are told apart by them."""


def layers_of(layout: Layout, argument: str = "oci:dir", platform: str | None = None) -> list[bytes]:
    """Return the layers of the image that is picked from *layout*, all else that holds for it checked."""
    layout.write("dir")
    wanted = None if platform is None else Platform.parse(platform)
    with opened(argument, SETTINGS._replace(platform=wanted)) as image:
        check_image(image)
        return [stored(layer) for layer in image.layers]


def named(*names: str | None) -> Layout:
    """Return a layout of as many images as there are *names*, each with a layer of its own."""
    layout = Layout()
    for name, layers in zip(names, (A, B, C), strict=False):
        layout.list(layout.image(layers), name)
    return layout
