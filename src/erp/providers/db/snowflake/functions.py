"""Functions of Snowflake that only compute; every other one is refused, also one that a later release brings.

Left out on purpose: whatever names objects by text (identifier, table), reads stages or results (get_presigned_url,
result_scan), tells of or changes the account (system$..., current_user, current_role), calls models (ai_..., cortex), or
draws from sequences (seq1 to seq8, nextval) and waits (system$wait).
"""

from __future__ import annotations

_CORE = """
abs acos acosh add_months any_value approx_count_distinct approx_percentile array_agg array_append array_cat array_compact
array_construct array_contains array_distinct array_except array_insert array_intersection array_max array_min array_position
array_prepend array_remove array_size array_slice array_sort array_to_string as_array as_char as_date as_decimal as_double as_integer
as_number as_object as_real as_varchar ascii asin atan atan2 avg base64_decode_string base64_encode bitand bitnot bitor bitxor
booland booland_agg boolnot boolor boolor_agg boolxor cast cbrt ceil charindex chr coalesce collate collation concat concat_ws
conditional_change_event contains convert_timezone corr cos cosh cot count count_if covar_pop covar_samp cume_dist current_date
current_time current_timestamp date date_from_parts date_part date_trunc dateadd datediff dayname decode degrees dense_rank
div0 div0null editdistance endswith equal_null exp extract factorial first_value flatten floor get get_path greatest grouping
grouping_id hash haversine hex_encode hour iff ifnull ilike initcap insert is_array is_boolean is_date is_decimal is_double
is_integer is_null_value is_object is_real is_varchar jarowinkler_similarity kurtosis lag last_day last_value lead least left
length like likeall likeany listagg ln localtime localtimestamp log lower lpad ltrim max max_by md5 md5_hex median min min_by
minhash minute mod mode month monthname months_between next_day nth_value ntile nullif nullifzero nvl nvl2 object_agg
object_construct object_construct_keep_null object_delete object_insert object_keys object_pick parse_json percent_rank
percentile_cont percentile_disc pi position pow power previous_day quarter radians rank ratio_to_report regexp regexp_count
regexp_instr regexp_like regexp_replace regexp_substr regr_slope replace reverse right round row_number rpad rtrim sha1
sha1_hex sha2 sha2_hex sign sin sinh skew soundex space split split_part sqrt square startswith stddev stddev_pop stddev_samp strip_null_value
strtok strtok_to_array substr substring sum sysdate tan tanh time time_from_parts time_slice timeadd timediff
timestamp_from_parts timestampadd timestampdiff to_array to_binary to_boolean to_char to_date to_decimal to_double to_json to_number
to_numeric to_object to_time to_timestamp to_timestamp_ltz to_timestamp_ntz to_timestamp_tz to_varchar to_variant translate
trim trunc truncate try_parse_json try_cast try_to_binary try_to_boolean try_to_date try_to_decimal try_to_double try_to_number
try_to_time try_to_timestamp typeof unicode upper uuid_string var_pop var_samp variance vector_cosine_similarity vector_inner_product
vector_l2_distance week weekofyear width_bucket year zeroifnull day check_json
"""
HARMLESS = frozenset(_CORE.split())
