"""One image: its model, and its layers as files."""
