"""One image: its model, and the trees of its layers."""
