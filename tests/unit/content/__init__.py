"""Tests of fusefs.content."""
