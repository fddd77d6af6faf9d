"""The steps of one run, in the order in which pipelines/distill.py takes them."""
