"""The longest chain, under budgets, cuts, hops and nested exceptions."""
