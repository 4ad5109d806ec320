"""Functions of MySQL and MariaDB that only compute; every other one is refused, also one that a later release brings.

Left out on purpose: whatever reads files (load_file, extractvalue of files through xml entities), takes or frees locks
(get_lock, release_all_locks), waits (sleep, benchmark, master_pos_wait), sets what later statements see (last_insert_id,
setval, nextval), or tells of other sessions and of the server (user, version, connection_id, uuid_short).
"""

from __future__ import annotations

_CORE = """
abs acos adddate addtime aes_decrypt aes_encrypt any_value ascii asin atan atan2 avg bin bin_to_uuid bit_and bit_count bit_length
bit_or bit_xor cast ceil ceiling char char_length character_length chr coalesce concat concat_ws conv convert convert_tz cos cot
count crc32 crc32c cume_dist curdate current_date current_time current_timestamp curtime date date_add date_format date_sub
datediff day dayname dayofmonth dayofweek dayofyear decode_oracle degrees dense_rank elt exp export_set extract field
find_in_set first_value floor format from_base64 from_days from_unixtime get_format greatest group_concat grouping hex hour if
ifnull inet6_aton inet6_ntoa inet_aton inet_ntoa insert instr interval is_ipv4 is_ipv6 is_uuid isnull lag last_day last_value lcase
lead least left length ln localtime localtimestamp locate log log10 log2 lower lpad ltrim make_set makedate maketime max md5
median microsecond mid min minute mod month monthname natural_sort_key now nth_value ntile nullif nvl nvl2 oct octet_length ord
percent_rank percentile_cont percentile_disc period_add period_diff pi position pow power quarter quote radians rand rank
regexp_instr regexp_like regexp_replace regexp_substr replace reverse right round row row_number rpad rtrim sec_to_time second
sha sha1 sha2 sign sin soundex space sqrt std stddev stddev_pop stddev_samp str_to_date strcmp subdate substr substring
substring_index subtime sum sysdate tan time time_format time_to_sec timediff timestamp timestampadd timestampdiff to_base64
to_char to_days to_number to_seconds trim truncate ucase unhex unix_timestamp upper utc_date utc_time utc_timestamp uuid
uuid_to_bin values var_pop var_samp variance week weekday weekofyear weight_string year yearweek value
"""
_JSON = """
json_array json_array_append json_array_insert json_arrayagg json_compact json_contains json_contains_path json_depth
json_detailed json_equals json_exists json_extract json_insert json_keys json_length json_loose json_merge_patch
json_merge_preserve json_normalize json_object json_objectagg json_overlaps json_pretty json_query json_quote json_remove
json_replace json_search json_set json_table json_type json_unquote json_valid json_value
"""
_SHAPES = """
match against st_area st_asgeojson st_astext st_buffer st_centroid st_contains st_distance st_distance_sphere st_equals
st_geomfromtext st_geometryfromtext st_intersects st_length st_pointfromtext st_within st_x st_y point
"""
HARMLESS = frozenset(f"{_CORE} {_JSON} {_SHAPES}".split())
