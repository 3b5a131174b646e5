"""The composition root: settings become open resources.

Only `cli`, `service`, `doctor` and this package use the configuration.
"""
