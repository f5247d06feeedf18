"""Bounds put on a layout's stacks: needs, headroom, verdicts."""
