"""Level 5, labelled side: how results look in Jupyter, and the interactive view. No torch here.

``hook`` alone is imported with the package, and only where IPython runs; it imports the rest when something is shown.
"""
