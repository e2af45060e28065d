"""Images in files, directories and pipes."""
