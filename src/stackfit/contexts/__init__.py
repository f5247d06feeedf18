"""Where execution starts, and what hardware and entry code push first."""
