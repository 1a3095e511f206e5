"""Level 0: names, configurations, keyed noise streams, provenance. Imports nothing else of gradprobe."""
