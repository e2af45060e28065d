"""Tests of one module each, without root, mounts and engines; the packages are those of fusefs."""
