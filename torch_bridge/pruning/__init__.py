"""T-IMP as a pruning method of torch."""
