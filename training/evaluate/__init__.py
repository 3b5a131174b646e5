"""Evaluation: metrics, predictions, gates, claims and plots."""
