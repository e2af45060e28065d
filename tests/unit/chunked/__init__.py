"""Tests of fusefs.chunked."""
