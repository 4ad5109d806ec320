"""Personal data: what is recognised as such, how it is treated where it must not stand, and how it is erased."""
