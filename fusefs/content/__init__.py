"""Where bytes lie: in memory, in a file, in a spool."""
