"""Level 3, labelled side: tables and pages made of statistics and figures. No torch here."""
