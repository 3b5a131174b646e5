"""De-identification: the allow-list, keyed pseudonyms, native pixel data."""
