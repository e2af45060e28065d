"""Tests of fusefs.sources.engine."""
