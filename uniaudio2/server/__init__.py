"""The server: a model behind OpenAI's audio interface, and behind our own for what that one lacks."""
