"""Statistics of human ratings: agreement, mean opinion scores, comparison of two sets of scores. Pure."""
