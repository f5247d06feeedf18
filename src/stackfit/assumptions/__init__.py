"""Facts that are used and not derived, each with its reason and source."""
