"""From the IMAGE argument to the image."""

from fusefs.cacheentry import Entry
from fusefs.image import Image
from fusefs.sources.endpoint import Endpoint, find_endpoint
from fusefs.sources.files import file_image
from fusefs.sources.reference import EngineImage, FileImage, parse_image
from fusefs.sources.settings import Settings


def open_image(argument: str, settings: Settings) -> Image:
    """Return the image that *argument* names, complete and checked as far as its source allows.

    Raises an ImgfsError.  The image stays readable until the process ends.
    """
    match parse_image(argument):
        case EngineImage(text):
            return _engine_image(find_endpoint(settings.host, settings.context, settings.environment), text, settings)
        case FileImage() as file:
            settings.meanwhile()
            return file_image(file, argument, settings)


def _engine_image(endpoint: Endpoint, name: str, settings: Settings) -> Image:
    """Return the image *name* of an engine: without the SDK, which takes 0.2 s to import, if it is kept."""
    from fusefs.sources.inspection import Target, quickly_inspected  # noqa: PLC0415 - a file needs none of this
    from fusefs.sources.kept_image import Asked, engine_entry  # noqa: PLC0415

    cache = settings.cache()
    asked = None
    if cache is not None and not cache.is_empty():
        settings.meanwhile()
        inspected = quickly_inspected(endpoint, name)
        if inspected is not None:
            target = Target(name, settings.platform, inspected)
            asked = Asked(target, engine_entry(target, settings))
            if isinstance(asked.found, Image):
                return asked.found
    from fusefs.sources.engine import engine_image  # noqa: PLC0415 - nor what is kept of the SDK

    try:
        return engine_image(endpoint, name, settings, asked)
    except BaseException:
        if asked is not None and isinstance(asked.found, Entry):
            asked.found.abandon()
        raise
