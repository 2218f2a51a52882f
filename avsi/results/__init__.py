"""What is made of a results folder: its trials as one table, summaries, figures and a page."""
