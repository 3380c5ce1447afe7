"""What a run shows and writes: rows, tables, files."""
