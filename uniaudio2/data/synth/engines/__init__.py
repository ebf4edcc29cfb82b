"""Spoken engines, a file each; `uniaudio2.data.synth.voices.engines` finds them."""
