"""Tests of fusefs.sources.servers."""
