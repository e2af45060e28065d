"""Drills of faults and of load: short in the tests, long in ``scripts/soak``."""
