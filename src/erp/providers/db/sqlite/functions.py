"""SQL functions that only compute; every other one is refused, also one that a later SQLite brings.

Left out on purpose: load_extension, readfile, writefile, edit and fsdir (files), fts3_tokenizer (loads code), sqlite_log
(writes to the process's log), optimize and rtreecheck and rtreenode (internals), fts5 (a pointer).
"""

from __future__ import annotations

_CORE = """
-> ->> abs changes char coalesce concat concat_ws format glob hex ifnull iif if instr last_insert_rowid length like
likelihood likely lower ltrim max min nullif octet_length printf quote random randomblob replace round rtrim sign soundex
sqlite_source_id sqlite_version substr substring subtype total_changes trim typeof unhex unicode unistr unistr_quote
unlikely upper zeroblob match
"""
_TIME = "current_date current_time current_timestamp date datetime julianday strftime time timediff unixepoch"
_AGGREGATES = """
avg count group_concat string_agg sum total median percentile percentile_cont percentile_disc
cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number
"""
_MATHS = """
acos acosh asin asinh atan atan2 atanh ceil ceiling cos cosh degrees exp floor ln log log10 log2 mod pi pow power radians
sin sinh sqrt tan tanh trunc
"""
_JSON = """
json json_array json_array_insert json_array_length json_each json_error_position json_extract json_group_array
json_group_object json_insert json_object json_patch json_pretty json_quote json_remove json_replace json_set json_tree
json_type json_valid jsonb jsonb_array jsonb_array_insert jsonb_extract jsonb_group_array jsonb_group_object
jsonb_insert jsonb_object jsonb_patch jsonb_remove jsonb_replace jsonb_set
"""
_SEARCH = "bm25 highlight matchinfo offsets snippet"

HARMLESS = frozenset(f"{_CORE} {_TIME} {_AGGREGATES} {_MATHS} {_JSON} {_SEARCH}".split())
ALTERING = frozenset(
    {
        "sqlite_add_constraint",
        "sqlite_drop_column",
        "sqlite_drop_constraint",
        "sqlite_fail",
        "sqlite_find_constraint",
        "sqlite_rename_column",
        "sqlite_rename_quotefix",
        "sqlite_rename_table",
        "sqlite_rename_test",
    }
)
"""What SQLite itself calls while it alters a table; no statement of a caller reaches them."""
