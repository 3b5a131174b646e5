"""Physical measures and statistics of pixels."""
