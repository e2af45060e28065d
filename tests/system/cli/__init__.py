"""Tests of the command line by the real command."""
