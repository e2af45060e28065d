"""Log messages on stderr."""

from fusefs.log import before_first_message


def log_to_stderr(*, quiet: bool = False, verbose: bool = False) -> None:
    """Write warnings and errors of the log to stderr; *quiet*: errors only, *verbose*: information, too."""

    def configure() -> None:
        import logging  # noqa: PLC0415 - most commands have no message

        from fusefs.cli.output.logs import stderr_handler  # noqa: PLC0415

        level = logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING
        logging.basicConfig(level=logging.INFO, handlers=[stderr_handler(level)], force=True)

    before_first_message(configure)
