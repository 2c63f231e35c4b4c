"""The paper's figures and tables: measured, kept as small records, drawn.

One module a figure; `registry` names them, `command` is ``topobounds figures``. Importing this package is cheap.
"""
