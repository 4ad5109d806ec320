"""Reads SQL before an engine does: what it is, what it touches, and the same statement confined to one tenant.

statements  text to tree, within limits that keep the parser quick whoever wrote the text
rules       one statement, of a kind that only reads or only changes rows, of allowed functions
isolation   every table replaced by what a tenant may see of it; every change confined to its rows
queries     one query of allowed tables and functions, for engines that run it as it is written
proof       a second look at the result by other means

A parser is never the only barrier: the engine's own (a read-only handle, an authorizer, row-level security,
triggers) stands underneath. Importing this package costs nothing; its parts import sqlglot.
"""
