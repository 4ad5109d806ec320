"""What every engine of SQL needs beside its driver.

lexis        text of a statement to tokens, as the engine's own lexer reads it
placeholders the contract's ``?`` to the driver's placeholders
values       scalars of the contract to Python values and back, bounded answers
pages        rows in pages, and the readings of a transaction whose next page is still to come
leases       transactions over several calls: each has an owner and a lease
lending      connections of one peer, lent one caller at a time
dbapi        a database behind a blocking driver, which an engine of a vendor makes one of its own
threads      blocking calls of a driver, each in a thread until it ends or nobody waits for it any more

Importing this package costs nothing.
"""
