"""The trainings behind the committed accuracies: what is run, how results are kept, read and shown."""
