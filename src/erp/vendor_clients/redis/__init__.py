"""Redis and Valkey for the providers that use them: where they are, how they are asked, what their failures mean.

settings   the configuration of a connection, whatever its mode
link       one open connection: commands, scripts, health, never more at a time than its pool
routes     how a command reaches a server, a master behind sentinels, or a node of a cluster
connecting where connections may be opened, and TLS
failures   what a failure means for the caller
keyspace   the keys of one tenant's connection
scripts    Lua that Redis runs as one step
"""
