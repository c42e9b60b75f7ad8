"""Figures as runs: an experiment's YAML, the panels it asks for, the sheet they make."""
