"""Tests of fusefs.sources.registry."""
