"""CLIP towers at any resolution, the shared pyramid, task heads, and the CLIPTeX model itself."""
