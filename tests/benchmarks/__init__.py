"""Figures that a document may quote: each stands beside the command that prints it."""
