"""Tests of images in registries, with real ones on loopback."""
