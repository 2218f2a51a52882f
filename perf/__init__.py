"""What avsi costs. ``python -m perf`` measures; see README.md."""
