"""The claims of the paper, measured with controls: ``make claims``."""
