"""Level 1: draws. Noise is put somewhere in a model and the losses that it causes are recorded."""
