"""Compiled kernels: bare arrays in, counts out. The only folder that imports numba.

A kernel is handed everything it works on, checks nothing, and calls only kernels of its own file: numba's cache of a
compiled function does not notice an edit in another file.
"""
