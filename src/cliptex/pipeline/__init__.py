"""What connects the stages: the stage runner and the lists of stages of each whole run."""
