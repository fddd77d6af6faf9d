"""Other formats of a model, and whether they answer alike."""
