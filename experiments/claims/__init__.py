"""The paper's claims as numbers with controls: ``make claims``."""
