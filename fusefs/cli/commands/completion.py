"""imgfs completion: the completion script for a shell."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from fusefs.cli.output.stdout import Output


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Print the script."""
    output = Output(environment)
    output.raw((Path(__file__).parent / f"completion.{arguments.shell}").read_bytes())
    output.finish()
