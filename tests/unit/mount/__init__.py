"""Tests of fusefs.mount."""
