"""From the IMAGE argument to the image."""

from fusefs.image import Image
from fusefs.sources.endpoint import find_endpoint
from fusefs.sources.files import file_image
from fusefs.sources.reference import EngineImage, FileImage, parse_image
from fusefs.sources.settings import Settings


def open_image(argument: str, settings: Settings) -> Image:
    """Return the image that *argument* names, complete and checked as far as its source allows.

    Raises an ImgfsError.  The image stays readable until the process ends.
    """
    match parse_image(argument):
        case EngineImage(text):
            # The SDK takes 0.2 s to import, and a file needs none of it.
            from fusefs.sources.engine import engine_image  # noqa: PLC0415

            endpoint = find_endpoint(settings.host, settings.context, settings.environment)
            return engine_image(endpoint, text, settings)
        case FileImage() as file:
            return file_image(file, argument, settings)
