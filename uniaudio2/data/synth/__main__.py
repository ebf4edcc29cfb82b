"""``python -m uniaudio2.data.synth OUT_DIR``."""

from uniaudio2.data.synth.run import main

if __name__ == "__main__":
    main()
