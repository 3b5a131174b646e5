"""Checks of the node against itself: constancy, reproduction of a report, integrity."""
