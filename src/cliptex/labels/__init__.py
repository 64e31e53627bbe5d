"""Dense labels: what each kind of label is, how it is stored, and how a store is read."""
