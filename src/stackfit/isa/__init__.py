"""Instruction sets: bytes to instruction effects, as arrays."""
