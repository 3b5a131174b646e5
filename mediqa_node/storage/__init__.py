"""Storage: Part 10 files in the spool, rows in the database. The only user of SQLAlchemy, with `pipeline/durable`."""
