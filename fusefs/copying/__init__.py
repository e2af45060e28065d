"""Copies files of a tree to the host, or into a tar: what `imgfs cp` and `OpenedImage.copy` do.

Nothing below a destination is looked up by a path: each directory is opened relative to the one above it, and no
symbolic link is followed.
"""
