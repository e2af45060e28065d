"""Tests of fusefs.cache."""
