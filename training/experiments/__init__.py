"""Experiments over a sample store: the ablation of stage 1 and the paper's tables."""
