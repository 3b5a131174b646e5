"""Pixels to network input: slice selection, preprocessing, views, training range, verdict. Pure."""
