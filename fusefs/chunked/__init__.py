"""Layers that can be read piece by piece: zstd:chunked and eStargz."""
