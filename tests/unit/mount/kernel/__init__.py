"""Tests of fusefs.mount.kernel."""
