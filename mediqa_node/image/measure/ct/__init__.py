"""Measures of CT stacks: noise, size, dose for the size, sharpness. Pure."""
