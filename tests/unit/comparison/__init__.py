"""Tests of fusefs.comparison."""
