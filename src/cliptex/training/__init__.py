"""CLIP trained with the contrastive loss and the experts' labels: loss (1) of the paper."""
