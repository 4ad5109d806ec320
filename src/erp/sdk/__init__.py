"""What programs that use the layer import."""
