"""Networks: how a picture becomes codes, and a loss of codes a gradient for the picture."""
