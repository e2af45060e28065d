"""Random and damaged inputs: property tests, fuzzers, and the corpora that fuzzers found."""
