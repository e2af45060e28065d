"""Tests of fusefs.erofs."""
