"""Real parts for the trials: processes, peers, wires and images. Imported as `support.…`."""
