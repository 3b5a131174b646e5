"""Back-scoring: the courier feeds the series of a set to the worker, a few at a time, behind all other work."""
