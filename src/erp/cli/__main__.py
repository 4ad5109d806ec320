"""``python -m erp.cli``: the same as ``erp``."""

from erp.cli import main

if __name__ == "__main__":
    main()
