"""Scripts around the figures: comparison, gallery, training of the embedded network."""
