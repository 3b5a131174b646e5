"""Received instances on their way to other archives: which, in what order, and what became of them."""
