"""A page about an image, or about two and what differs: one HTML file that needs no network."""
