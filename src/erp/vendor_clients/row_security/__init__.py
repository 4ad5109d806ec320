"""Tables that tenants share, kept apart by more than the layer's rewriting: what makes it so, and what shows that it is.

postgres   row-level security of PostgreSQL: statements, and a look at what is there
mssql      security policies of SQL Server: statements
mysql      views of MariaDB that compare with the login that asks: statements, and a look at what is there
duckdb     fixed statements that carry one tenant's rows out of a shared file and back, and a look at what is there
sqlite     the list of a shared file's tables, and a look whether each is fit; its barriers are the provider's
"""

SETTING = "erp.tenant"
"""The setting (PostgreSQL) that holds the tenant for the length of a transaction."""
