"""What runs beside training: trainer, callbacks, density of gradients."""
