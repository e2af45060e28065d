"""Archives by URL: on web servers and in object stores, read by ranges where the server allows that."""
