"""Tests of fusefs.tree."""
