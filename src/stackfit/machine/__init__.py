"""Processes, CPUs and interrupts on pages and layouts: what a layout buys."""
