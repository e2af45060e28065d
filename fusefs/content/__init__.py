"""Bytes of files: in memory, in a file, in a spool."""
