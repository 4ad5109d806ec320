"""The rules of the quality scale, one module for each level."""
