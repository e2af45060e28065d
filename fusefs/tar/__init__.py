"""One tar: headers, members, attributes, compression."""
