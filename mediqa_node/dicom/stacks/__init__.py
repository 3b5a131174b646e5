"""From the planes of a series to ordered stacks: geometry, splitting, sorting (PS3.3 C.7.6.2)."""
