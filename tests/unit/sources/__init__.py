"""Tests of fusefs.sources."""
