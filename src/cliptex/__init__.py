"""CLIPTeX: CLIP training with model-zoo experts."""
