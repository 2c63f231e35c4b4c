"""Exact, certified and printed values that follow from the shapes of layers alone."""
