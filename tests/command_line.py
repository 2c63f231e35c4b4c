"""Runs the command line: here, where only what it says matters, or as a process of its own, which takes far longer."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

from topobounds.cli import main


def topobounds(*arguments, **environment):
    """Run a command in this process, as ``python -m topobounds`` into pipes, and return how it ended."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    words = [str(argument) for argument in arguments]
    status = None
    with patch.dict(os.environ, environment), redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        try:
            main(words)
        except SystemExit as left:
            status = left.code
    out, err = (written(stream) for stream in streams)
    return subprocess.CompletedProcess(words, status, out, err)


def written(stream):
    stream.flush()
    return stream.buffer.getvalue().decode()


def process(*arguments, options=(), cwd=None, **environment):
    """Run a command as a process of its own, after options for Python, and return how it ended."""
    command = [sys.executable, *options, "-m", "topobounds", *map(str, arguments)]
    variables = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=variables, cwd=cwd)
