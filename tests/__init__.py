"""Tests of imgfs, by what they need.

========== ==========================================================================================
unit       one module each, as the packages of fusefs: no root, no mounts, no engines
fuzz       random and damaged inputs: properties, fuzzers, and the corpora that fuzzers found
system     the real command: its command line, its mounts, engines, and mount(8)
peers      next to other programs that write, read and unpack images
drills     faults and load: short here, long in ``scripts/soak``
support    what tests are made of: images from `builders`, mounts, engines, terminals, requirements
programs   what tests start as processes of their own
========== ==========================================================================================
"""
