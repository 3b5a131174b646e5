"""Training data: manifests, collections, sample stores, views and batches."""
