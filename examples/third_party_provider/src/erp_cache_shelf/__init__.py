"""The provider cache/shelf: ``provider.yaml`` says what it is, ``provider.py`` what it does."""
