"""Scripts around the figures: demo, comparison, gallery, training of the embedded network."""
