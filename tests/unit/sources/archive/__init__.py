"""Tests of fusefs.sources.archive."""
