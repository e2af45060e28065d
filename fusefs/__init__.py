"""imgfs: a container image as a read-only directory."""

__version__ = "0.1.0"
