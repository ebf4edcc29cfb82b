"""One file a system; its name is the system's name."""
