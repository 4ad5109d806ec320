"""Parts that several test folders share."""
