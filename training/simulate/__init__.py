"""Simulate degraded images with a known cause: physics at native resolution, with measured labels."""
