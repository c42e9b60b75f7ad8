"""Networks: compute codes from pictures, and gradients of losses with respect to pictures."""
