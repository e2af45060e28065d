"""Tests of `fusefs.cli.catalogs`."""
