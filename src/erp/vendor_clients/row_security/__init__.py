"""Tables that tenants share, kept apart by the engine itself: what makes it so, and what shows that it is.

postgres   row-level security of PostgreSQL: statements, and a look at what is there
mssql      security policies of SQL Server: statements
mysql      views of MariaDB that compare with the login that asks: statements, and a look at what is there
"""

SETTING = "erp.tenant"
"""The setting (PostgreSQL) that holds the tenant for the length of a transaction."""
