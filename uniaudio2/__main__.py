"""``python -m uniaudio2`` is the same as the command ``uniaudio2``."""

from uniaudio2.cli import main

if __name__ == "__main__":
    main()
