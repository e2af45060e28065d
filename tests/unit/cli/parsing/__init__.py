"""Tests of fusefs.cli.parsing."""
