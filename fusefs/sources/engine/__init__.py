"""Images in an engine."""
