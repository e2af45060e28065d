"""EROFS metadata for the view of an image: the kernel mounts it, with the image's own files as data devices."""
