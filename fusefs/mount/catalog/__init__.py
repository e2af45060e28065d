"""Many images as one directory: their names, and each image opened when somebody looks into it."""
