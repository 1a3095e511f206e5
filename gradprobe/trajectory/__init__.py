"""Level 3: descents on functions whose landscape is known, with any estimator, and the fields they follow."""
