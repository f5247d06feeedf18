"""Data to terminal and JSON."""
