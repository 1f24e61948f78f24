"""The benchmark: what a Model Join costs, beside what else one could do."""
