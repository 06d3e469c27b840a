"""What is found out without training: about the machine that a model will run on, and about its thresholds and ratios."""
