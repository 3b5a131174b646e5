"""Which slices are judged, how they become network input, and what a score means here. Pure."""
