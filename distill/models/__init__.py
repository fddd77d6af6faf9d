"""Any classifier: loading, its layers' outputs, windows over long texts, FLOPs."""
