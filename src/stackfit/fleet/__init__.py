"""Many images, scenarios and hosts, on Dask. Results are those of one process, whoever computes them."""
