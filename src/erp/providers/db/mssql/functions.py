"""Functions of Transact-SQL that only compute; every other one is refused, also one that a later release brings.

Left out on purpose: whatever reads files or other servers (openrowset, opendatasource, openquery, openxml), tells of the
server, the session or other users (serverproperty, session_context, host_name, user_name, has_perms_by_name, object_id), or
reads the transaction log (fn_dblog, fn_trace_gettable).
"""

from __future__ import annotations

_CORE = """
abs acos ascii asin atan atn2 avg bit_count cast ceiling char charindex checksum_agg choose coalesce concat concat_ws convert cos
cot count count_big cume_dist current_timestamp datalength date_bucket dateadd datediff datediff_big datefromparts datename
datepart datetime2fromparts datetimefromparts datetimeoffsetfromparts datetrunc day degrees dense_rank difference eomonth exp
first_value floor format generate_series get_bit getdate getutcdate greatest grouping grouping_id hashbytes iif isdate isjson isnull
isnumeric json_array json_arrayagg json_modify json_object json_objectagg json_path_exists json_query json_value lag last_value
lead least left left_shift len log log10 lower ltrim max min month nchar newid nullif ntile openjson parse parsename patindex
percent_rank percentile_cont percentile_disc pi power quotename radians rand rank regexp_count regexp_instr regexp_like
regexp_replace regexp_substr replace replicate reverse right right_shift round row_number rtrim set_bit sign sin smalldatetimefromparts
soundex space sqrt square stdev stdevp str string_agg string_escape string_split stuff substring sum switchoffset
sysdatetime sysdatetimeoffset sysutcdatetime tan timefromparts todatetimeoffset translate trim try_cast try_convert try_parse
unicode upper var varp year approx_count_distinct product
"""
_SYNTAX = "apply top offset"
"""Words before a parenthesis that call nothing."""
HARMLESS = frozenset(f"{_CORE} {_SYNTAX}".split())
