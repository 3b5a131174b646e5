"""Frames out of files: native ones byte by byte, compressed ones by a disposable child. Import the modules."""
