"""What a user holds: ``UniAudio2`` and the results of its methods."""
