"""The workbench: pages and an API over what the node has stored. It computes no score and imports no torch."""
