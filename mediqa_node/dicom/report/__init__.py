"""The Structured Report (TID 1500): codes, content tree, header, bytes."""
