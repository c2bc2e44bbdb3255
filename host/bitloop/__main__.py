"""``python -m bitloop``: the command line."""

from bitloop.cli import main

if __name__ == "__main__":
    main()
