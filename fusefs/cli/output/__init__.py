"""What the command prints: standard output, progress and logs."""
