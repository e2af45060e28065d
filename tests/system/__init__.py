"""Tests of the real command, on real mounts and engines."""
