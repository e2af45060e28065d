"""The benchmark: imgfs beside the tools that a user would pick instead, in one run on one machine."""
