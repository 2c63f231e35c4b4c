"""``python -m topobounds`` is the command line."""

from topobounds.cli import main

if __name__ == "__main__":
    main()
