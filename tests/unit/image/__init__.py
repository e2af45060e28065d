"""Tests of fusefs.image."""
