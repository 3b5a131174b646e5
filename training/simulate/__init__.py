"""Worse images with a known cause: physics at native resolution, labels that are measured and not drawn."""
