"""Tests of fusefs.oci."""
