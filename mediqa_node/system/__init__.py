"""Files that survive a crash: atomic writing, locks, publishing, failpoints. Standard library and numpy only."""
