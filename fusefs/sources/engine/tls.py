"""TLS to an engine: whom to trust and what to present, by one rule for every client of imgfs."""

import ssl

from fusefs.sources.engine.endpoint import Tls


def ssl_context(tls: Tls | None) -> ssl.SSLContext:
    """Return how to encrypt a connection to an engine that has *tls*; None is plain ``https://``.

    A `Tls.ca` is trusted alone; without one the system's authorities are, as in the docker command.  Variables such
    as REQUESTS_CA_BUNDLE have no say.  Raises OSError for a file that cannot be read or holds no certificate.
    """
    context = ssl.create_default_context(cafile=str(tls.ca) if tls and tls.ca and tls.verify else None)
    if tls and not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls and tls.client:
        context.load_cert_chain(*tls.client)
    return context
