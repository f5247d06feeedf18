"""What a layout costs and what it buys, in one place: verdicts, machine and claims side by side."""
