"""Which stacks a system has, how big they are and what runs on them."""
