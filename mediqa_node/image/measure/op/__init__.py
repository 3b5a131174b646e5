"""Measures of fundus photographs."""
