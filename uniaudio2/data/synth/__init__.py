"""The factory of labelled audio: speech by several synthesisers, procedural and licensed sounds, mixtures."""
