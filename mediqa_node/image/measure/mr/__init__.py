"""Physical measures of magnetic resonance images."""
