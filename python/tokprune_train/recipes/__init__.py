"""The trainings that `tokprune train` offers, one module each."""
