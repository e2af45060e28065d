"""Tests of archives at URLs."""
