"""From the IMAGE argument to the image."""

from contextlib import closing, suppress
from typing import TYPE_CHECKING, Protocol, TypeVar

from fusefs.oci.transport import DOCKER_DAEMON, Source
from fusefs.sources.argument import EngineImage, FileImage, RegistryImage, UrlImage, parse_image

if TYPE_CHECKING:
    from fusefs.image.inspection import Inspection
    from fusefs.image.model import SourcedImage
    from fusefs.sources.engine.save import Engine
    from fusefs.sources.engine.unix import Asked
    from fusefs.sources.settings import Settings

_T_co = TypeVar("_T_co", covariant=True)


class _Question(Protocol[_T_co]):
    def __call__(self, engine: "Engine", source: Source, settings: "Settings", /) -> _T_co: ...


def open_image(argument: str, settings: "Settings", asked: "Asked | None" = None) -> "SourcedImage":
    """Return the image that *argument* names, complete and checked as far as its source allows.

    *asked* is the engine that was asked for it before.  Raises an ImgfsError.  The image stays readable until the
    process ends.
    """
    match parse_image(argument):
        case EngineImage(text):
            from fusefs.sources.engine.save import engine_image  # noqa: PLC0415 - files need no engine

            if asked is not None:
                from fusefs.sources.engine.advice import advising  # noqa: PLC0415

                with advising(asked.endpoint, text), closing(asked.engine):
                    return engine_image(asked.engine, asked.source, settings, asked.inspected)
            return _ask_engine(text, settings, engine_image)
        case RegistryImage(reference):
            from fusefs.sources.registry.image import registry_image  # noqa: PLC0415 - no other source needs urllib3

            return registry_image(reference, argument, settings)
        case UrlImage() as archive:
            from fusefs.sources.url.archive import url_image  # noqa: PLC0415 - no other source needs urllib3

            return url_image(archive, argument, settings)
        case FileImage() as file:
            from fusefs.sources.archive.file import file_image  # noqa: PLC0415 - no other source needs it

            return file_image(file, argument, settings)


def describe_image(argument: str, settings: "Settings") -> "Inspection | None":
    """Return what an engine says of the image that *argument* names, without its bytes.

    None if `open_image` has to tell: the image is in no engine, it is cached, or to be checked.
    """
    match parse_image(argument):
        case EngineImage(text):
            from fusefs.sources.engine.save import engine_inspection  # noqa: PLC0415 - files need no engine

            return _ask_engine(text, settings, engine_inspection)
    return None


def _ask_engine(name: str, settings: "Settings", ask: _Question[_T_co]) -> _T_co:
    """Return what *ask* returns of the image *name*, if possible without the SDK, which takes 0.2 s to import."""
    from fusefs.sources.engine.advice import NotPulled, advising, is_podman  # noqa: PLC0415 - files need no engine
    from fusefs.sources.engine.endpoint import find_endpoint  # noqa: PLC0415
    from fusefs.sources.engine.question import NoPlainAnswer  # noqa: PLC0415
    from fusefs.sources.engine.unix import UnixEngine  # noqa: PLC0415

    endpoint = find_endpoint(settings.host, settings.context, settings.environment)
    source = Source(name, DOCKER_DAEMON, endpoint.host, name)
    settings.cache()  # an unusable one is an error before the engine is asked
    with advising(endpoint, name):
        with suppress(NoPlainAnswer), closing(UnixEngine(endpoint, settings.timeout)) as quick:
            return ask(quick, source, settings)

        from fusefs.sources.engine.sdk import sdk_engine  # noqa: PLC0415 - slow to import

        try:
            with sdk_engine(endpoint, settings.timeout) as engine:
                return ask(engine, source, settings)
        except NotPulled as error:
            from fusefs.sources.registry.registries_conf import alias_of  # noqa: PLC0415 - only this error needs it

            if is_podman(endpoint.shown) and (full := alias_of(name, settings.environment)):
                raise error.named(full) from None
            raise
