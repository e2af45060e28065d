"""Tests of imgfs as a helper of mount(8)."""
