"""stackfit decides how big a stack has to be, with evidence."""

__version__ = "0.1.0"
