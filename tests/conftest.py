"""Makes `factories` importable from every test folder."""
