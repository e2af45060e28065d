"""Tests of fusefs.cli."""
