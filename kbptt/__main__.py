"""``python -m kbptt`` is the command ``kbptt``."""

from kbptt.cli import main

if __name__ == "__main__":
    main()
