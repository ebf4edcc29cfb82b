"""Generation: prompts in, text and codes out, for every task and any number of requests at once."""
