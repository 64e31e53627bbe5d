"""Detectors and their parts: the plain ViT, necks over an encoder's maps, Mask R-CNN, SSD."""
