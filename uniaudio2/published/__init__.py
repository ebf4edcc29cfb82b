"""Published checkpoints: their sizes, and how they become model folders."""
