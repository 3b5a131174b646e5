"""MedIQA as a PACS node: receive, assess, report, harvest. Research use only, not for diagnosis."""

__version__ = "0.2.0"
