"""The cache: images from engines, layer indexes and plain tars, for the next mount."""
