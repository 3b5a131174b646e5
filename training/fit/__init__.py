"""Fitting: recipes, losses, the training loop, runs, regressors, checkpoints."""
