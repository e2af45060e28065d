"""Kernel mounts: a view that is written as EROFS metadata, mounted, attached, and put in the place of a FUSE mount."""
