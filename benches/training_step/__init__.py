"""What the benchmark of training steps is made of: the contenders, their batches, and how their memory is measured."""
