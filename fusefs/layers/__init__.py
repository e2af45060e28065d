"""One layer, and the merge of several: from a tar to an index, from indexes to trees."""
