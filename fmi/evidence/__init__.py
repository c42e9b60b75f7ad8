"""Evidence: numbers about pictures and filters, and how certain they are."""

from fmi.evidence.panels import SIZE, TRIM, Kept, descriptors, distance, distances, kept

__all__ = ["SIZE", "TRIM", "Kept", "descriptors", "distance", "distances", "kept"]
