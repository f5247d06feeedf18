"""The call graph: call sites of every kind and their candidates."""
