"""Export of harvested labels and pixels as a dataset: selection, files, nightly run."""
