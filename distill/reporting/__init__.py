"""Tables, plots, report and model card, made of records."""
