"""Measured records, and how they become figures."""
