"""Catalogs: an engine, a folder or a registry as one directory of images, for `imgfs mount --all`."""
