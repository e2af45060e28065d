"""Tests of fusefs.tar."""
