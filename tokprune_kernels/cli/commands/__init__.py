"""One module for each subcommand of `tokprune`; `cli/main.py` finds them here and says what a module must have."""
