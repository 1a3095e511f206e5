"""Level 1, where the two sides meet: the schema of results, run directories, opening them. No torch here."""
