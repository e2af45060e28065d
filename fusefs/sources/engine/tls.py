"""TLS settings for connections to engines, the same for every client in imgfs."""

import ssl

from fusefs.sources.engine.endpoint import Tls


def ssl_context(tls: Tls | None) -> ssl.SSLContext:
    """Return the TLS context for an engine with the settings *tls*; None is an ``https://`` address without settings.

    If `Tls.ca` is set, only that file is trusted; otherwise the system's authorities, as in the docker command.
    Variables such as REQUESTS_CA_BUNDLE are ignored.  Raises OSError for an unreadable or malformed file.
    """
    context = ssl.create_default_context(cafile=str(tls.ca) if tls and tls.ca and tls.verify else None)
    if tls and not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls and tls.client:
        context.load_cert_chain(*tls.client)
    return context
