"""Where weights and pictures come from: tables, fetching, file formats."""
