"""Labelling: image-text shards and an expert in, a label store out; and looking at the result."""
