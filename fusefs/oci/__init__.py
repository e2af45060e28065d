"""What an image says: digests, documents, platforms, references.  Values only, no I/O."""
