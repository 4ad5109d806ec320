"""ERP Provider Layer: one contract for every system an ERP depends on."""

__version__ = "0.1.0"
