"""Promotion, rollback and shadow scoring of checkpoints."""
