"""What is kept: Part 10 files in the spool, rows in the database. The only room that knows SQLAlchemy."""
