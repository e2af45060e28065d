"""Tests of mounts, seen through the kernel."""
