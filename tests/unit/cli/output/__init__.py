"""Tests of fusefs.cli.output."""
