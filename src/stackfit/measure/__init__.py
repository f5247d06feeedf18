"""Stack depth of running kernels: recorded chains and call edges, held against the static analysis."""
