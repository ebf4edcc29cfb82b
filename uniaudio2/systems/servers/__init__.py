"""Programs for environments of their own; see `uniaudio2.systems.process`. They import nothing of this package."""
