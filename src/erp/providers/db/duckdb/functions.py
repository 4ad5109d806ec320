"""DuckDB's functions that only compute; every other one is refused in a query, also one that a later DuckDB brings.

Left out on purpose: whatever reads files or settings (read_csv, glob, current_setting, getvariable), runs text as SQL
(query, json_execute_serialized_sql), writes (nextval, setval, write_log, checkpoint), waits (sleep_ms, pg_sleep),
shows internals (duckdb_*, pragma_*, current_query, stats), or makes one huge value out of a small one (repeat).
"""

from __future__ import annotations

_NUMBERS = """
abs acos acosh add asin asinh atan atan2 atanh bit_count cbrt ceil ceiling cos cosh cot degrees divide even exp factorial
fdiv floor fmod gamma gcd greatest greatest_common_divisor isfinite isinf isnan lcm least least_common_multiple lgamma ln log
log10 log2 mod multiply nextafter pi pow power radians random round round_even roundbankers sign signbit sin sinh sqrt
subtract tan tanh trunc xor random
"""
_TEXTS = """
ascii bin chr char_length character_length concat concat_ws contains damerau_levenshtein ends_with format format_bytes
from_base64 from_hex hamming hash hex instr jaccard jaro_similarity jaro_winkler_similarity lcase left len length
length_grapheme levenshtein like_escape lower lpad ltrim md5 mismatches nfc_normalize octet_length ord position prefix printf
regexp_escape regexp_extract regexp_extract_all regexp_full_match regexp_matches regexp_replace regexp_split_to_array
replace reverse right rpad rtrim sha1 sha256 split split_part starts_with str_split string_split string_to_array
strip_accents strlen strpos substr substring suffix to_base64 to_hex translate trim ucase unhex unicode upper url_decode
url_encode base64 encode decode bit_length overlay
"""
_TIMES = """
age ago century current_date current_localtime current_localtimestamp current_timestamp date_add date_diff date_part date_sub
date_trunc datediff datepart datesub datetrunc day dayname dayofmonth dayofweek dayofyear days_in_month decade epoch epoch_ms
epoch_ns epoch_us era extract get_current_time get_current_timestamp hour isodow isoyear julian last_day make_date make_time
make_timestamp make_timestamp_ms make_timestamp_ns make_timestamptz microsecond millennium millisecond minute month monthname
nanosecond now quarter second strftime strptime time_bucket timezone to_centuries to_days to_decades to_hours
to_microseconds to_millennia to_milliseconds to_minutes to_months to_quarters to_seconds to_timestamp to_weeks to_years today
transaction_timestamp try_strptime week weekday weekofyear year yearweek
"""
_AGGREGATES = """
any_value approx_count_distinct approx_quantile approx_top_k arbitrary arg_max arg_min argmax argmin array_agg avg bit_and
bit_or bit_xor bool_and bool_or corr count count_if count_star countif covar_pop covar_samp entropy favg first fsum
geometric_mean geomean group_concat grouping grouping_id histogram kahan_sum kurtosis kurtosis_pop last list listagg mad max
max_by mean median min min_by mode product quantile quantile_cont quantile_disc percentile_cont percentile_disc regr_avgx
regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy reservoir_quantile sem skewness stddev
stddev_pop stddev_samp string_agg sum sum_no_overflow sumkahan var_pop var_samp variance wavg weighted_avg cume_dist
dense_rank first_value lag last_value lead nth_value ntile percent_rank rank rank_dense row_number
"""
_NESTED = """
array_aggregate array_contains array_cosine_distance array_cosine_similarity array_cross_product array_distance
array_distinct array_dot_product array_extract array_filter array_inner_product array_length array_negative_inner_product
array_position array_slice array_sort array_to_string array_transform array_unique array_value cardinality element_at flatten
generate_series generate_subscripts json_array json_array_length json_contains json_each json_exists json_extract
json_extract_path json_extract_path_text json_extract_string json_group_array json_group_object json_keys json_merge_patch
json_object json_pretty json_quote json_structure json_tree json_type json_valid json_value list_aggregate list_any_value
list_append list_avg list_concat list_contains list_cosine_distance list_cosine_similarity list_count list_distance
list_distinct list_dot_product list_element list_extract list_filter list_first list_has list_has_all list_has_any
list_inner_product list_last list_max list_median list_min list_pack list_position list_prepend list_reduce list_reverse
list_reverse_sort list_select list_slice list_sort list_sum list_transform list_unique list_value list_zip map map_contains
map_entries map_extract map_from_entries map_keys map_values range row row_to_json struct_extract struct_insert struct_pack
to_json array_to_json from_json unnest union_extract union_tag
"""
_LOGIC = "cast coalesce constant_or_null if ifnull nullif columns try try_cast typeof uuid gen_random_uuid uuidv7 enum_range struct"
HARMLESS = frozenset(f"{_NUMBERS} {_TEXTS} {_TIMES} {_AGGREGATES} {_NESTED} {_LOGIC}".split())
