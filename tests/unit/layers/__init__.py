"""Tests of fusefs.layers."""
