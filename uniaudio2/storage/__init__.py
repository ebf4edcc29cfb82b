"""Model folders on disk: reading them, filling models from them, writing them. Knows no model by name."""
