"""``erp apply``, ``erp diff`` and ``erp export``: a server's tenants and what they have, as a file under version control."""
