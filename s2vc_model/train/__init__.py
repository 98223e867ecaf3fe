"""Training of the codec: data, rate model, losses, staged loop. Needs no Ray, no archive and no entropy coder."""
