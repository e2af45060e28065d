"""Tests of fusefs.packages."""
