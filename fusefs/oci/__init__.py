"""Digests, documents, platforms and references of images, as values without I/O."""
