"""Tests with engines, real and faked."""
