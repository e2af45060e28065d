"""A mount: from an image to a directory of the kernel."""
