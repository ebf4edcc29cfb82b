"""Data: manifests, synthesis, augmentation, codes on disk, and the batches made of them."""
