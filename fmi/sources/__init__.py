"""Sources of weights and pictures: tables, downloads, file formats."""
