"""Networks that find objects: ViDT in plain torch, and convolutional ones on a feature pyramid."""
