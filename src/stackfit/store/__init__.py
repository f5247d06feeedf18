"""One analysis as one SQLite file, and what changed between two."""
