"""Runs: read the YAML of an experiment, compute its panels, and draw the figure."""
