"""Level 3, torch side: from a problem and estimators to stored moments."""
