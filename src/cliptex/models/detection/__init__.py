"""Parts of detectors: the plain ViT and the heads."""
