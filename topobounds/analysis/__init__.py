"""What the shapes imply, what the weights say and what chance gives, side by side.

These modules hold and compare; the numbers are computed on the floors below.
"""
