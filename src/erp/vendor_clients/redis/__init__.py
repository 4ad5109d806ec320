"""Redis and Valkey for the providers that use them: where they are, how they are asked, what their failures mean.

settings   the configuration of a connection, whatever its mode
link       one way to a server, a sentinel's master or a cluster: commands, scripts, health
failures   what a failure means for the caller
keyspace   the keys of one tenant's connection
"""
