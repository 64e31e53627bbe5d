"""Joining image-text shards with label stores: one crop for both, batches as a pure function."""
