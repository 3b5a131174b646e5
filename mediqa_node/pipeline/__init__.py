"""The life of one instance: received, settled, assessed, delivered. Start with `flow.py`."""
