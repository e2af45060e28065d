"""Output of the command: standard output, progress and logs."""
