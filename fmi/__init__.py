"""What a filter of a convolutional network extracts from a picture.

A reproduction in Apache MXNet (Gluon) of "Every Filter Extracts A Specific Texture In
Convolutional Neural Networks" (Xia et al., arXiv 1608.04170). The public functions live in
:mod:`fmi.invert`; this module imports nothing, so that ``import fmi`` is instant.
"""

__version__ = "0.1.0"
