"""From the IMAGE argument to the image."""

import os
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from fusefs.errors import EngineError
from fusefs.image.model import SourcedImage
from fusefs.oci.transport import DOCKER_DAEMON, Source
from fusefs.sources.archive.file import file_image
from fusefs.sources.argument import EngineImage, FileImage, RegistryImage, parse_image
from fusefs.sources.settings import Settings
from fusefs.text import printable

if TYPE_CHECKING:
    from fusefs.sources.engine.endpoint import Endpoint


def open_image(argument: str, settings: Settings) -> SourcedImage:
    """Return the image that *argument* names, complete and checked as far as its source allows.

    Raises an ImgfsError.  The image stays readable until the process ends.
    """
    match parse_image(argument):
        case EngineImage(text):
            from fusefs.sources.engine.endpoint import find_endpoint  # noqa: PLC0415 - files need no engine

            endpoint = find_endpoint(settings.host, settings.context, settings.environment)
            try:
                return _engine_image(endpoint, text, settings)
            except EngineError as error:
                if not os.path.isfile(text):
                    raise
                raise EngineError(f"{error}; or give the file of that name as ./{printable(text)}") from None
        case RegistryImage(reference):
            from fusefs.sources.registry.image import registry_image  # noqa: PLC0415 - no other source needs urllib3

            return registry_image(reference, argument, settings)
        case FileImage() as file:
            return file_image(file, argument, settings)


def _engine_image(endpoint: "Endpoint", name: str, settings: Settings) -> SourcedImage:
    """Return the image *name* of an engine, if possible without the SDK, which takes 0.2 s to import."""
    from fusefs.sources.engine.save import engine_image  # noqa: PLC0415 - files need no engine
    from fusefs.sources.engine.unix import NoPlainAnswer, UnixEngine  # noqa: PLC0415

    source = Source(name, DOCKER_DAEMON, endpoint.host, name)
    settings.cache()  # an unusable one is an error before the engine is asked
    with suppress(NoPlainAnswer), closing(UnixEngine(endpoint, settings.timeout)) as quick:
        return engine_image(quick, source, settings)

    from fusefs.sources.engine.sdk import sdk_engine  # noqa: PLC0415 - slow to import

    with sdk_engine(endpoint, settings.timeout) as engine:
        return engine_image(engine, source, settings)
