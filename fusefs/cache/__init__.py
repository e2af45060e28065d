"""The cache: images that engines saved, layer indexes and plain tars."""
