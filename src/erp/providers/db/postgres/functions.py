"""Functions of PostgreSQL that only compute; every other one is refused, also one that a later release brings.

Left out on purpose: whatever reads or writes files, runs SQL given as text (query_to_xml, ts_stat), changes settings,
takes locks, sends notices, draws from sequences, waits, or tells of other sessions and of the server.
"""

from __future__ import annotations

_CORE = """
abs all any array array_agg array_append array_cat array_dims array_length array_lower array_ndims array_position
array_positions array_prepend array_remove array_replace array_to_string array_upper avg bit_and bit_length bit_or bool_and
bool_or btrim cardinality cast char_length character_length chr coalesce concat concat_ws corr count covar_pop covar_samp
cume_dist decode dense_rank every encode exists first_value format get_bit get_byte greatest grouping initcap lag last_value
lead least left length lower lower_inc lower_inf lpad ltrim max md5 min mode nth_value ntile nullif num_nonnulls num_nulls octet_length overlay
parse_ident percent_rank percentile_cont percentile_disc position quote_ident quote_literal quote_nullable range_merge rank
regexp_count regexp_instr regexp_like regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table
regexp_substr regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy repeat replace
reverse right row row_number rpad rtrim sha224 sha256 sha384 sha512 some split_part starts_with stddev stddev_pop
stddev_samp string_agg string_to_array string_to_table strpos substr substring sum to_ascii to_char to_date to_hex to_number
to_timestamp translate treat trim unistr unnest upper upper_inc upper_inf isempty var_pop var_samp variance width_bucket
array_fill array_sample array_shuffle trim_array normalize nullif any_value bit_xor range_agg range_intersect_agg bit_count
generate_series generate_subscripts multirange int4range int8range numrange tsrange tstzrange daterange
gen_random_uuid uuidv4 uuidv7 uuid_extract_timestamp uuid_extract_version
"""
_TIME = """
age clock_timestamp current_date current_time current_timestamp date_bin date_part date_trunc extract isfinite justify_days
justify_hours justify_interval localtime localtimestamp make_date make_interval make_time make_timestamp make_timestamptz now
statement_timestamp timeofday transaction_timestamp date_add date_subtract timezone date
"""
_MATHS = """
acos acosd acosh asin asind asinh atan atan2 atan2d atand atanh cbrt ceil ceiling cos cosd cosh cot cotd degrees div erf erfc
exp factorial floor gcd lcm ln log log10 min_scale mod pi power pow radians random random_normal round scale sign sin sind sinh sqrt
tan tand tanh trim_scale trunc
"""
_JSON = """
array_to_json json_agg json_agg_strict json_array json_array_elements json_array_elements_text json_array_length json_arrayagg
json_build_array json_build_object json_each json_each_text json_exists json_extract_path json_extract_path_text json_object
json_object_agg json_object_keys json_objectagg json_populate_record json_populate_recordset json_query json_scalar
json_serialize json_strip_nulls json_table json_to_record json_to_recordset json_typeof json_value jsonb_agg
jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each
jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_agg jsonb_object_keys
jsonb_path_exists jsonb_path_exists_tz jsonb_path_match jsonb_path_match_tz jsonb_path_query jsonb_path_query_array
jsonb_path_query_array_tz jsonb_path_query_first jsonb_path_query_first_tz jsonb_path_query_tz jsonb_populate_record
jsonb_populate_recordset jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls jsonb_to_record jsonb_to_recordset
jsonb_typeof row_to_json to_json to_jsonb
"""
_SEARCH = """
array_to_tsvector numnode phraseto_tsquery plainto_tsquery querytree setweight strip to_tsquery to_tsvector ts_delete
ts_filter ts_headline ts_rank ts_rank_cd ts_rewrite tsquery_phrase tsvector_to_array websearch_to_tsquery similarity
word_similarity strict_word_similarity
"""
_VECTORS = (
    "cosine_distance inner_product l1_distance l2_distance l2_norm l2_normalize vector_dims vector_norm subvector"
)
_SHAPES = (
    "area box center circle diagonal diameter height isclosed isopen line lseg npoints path point polygon radius width"
)
_NETWORK = "abbrev broadcast family host hostmask inet_merge inet_same_family masklen netmask network set_masklen text"

HARMLESS = frozenset(f"{_CORE} {_TIME} {_MATHS} {_JSON} {_SEARCH} {_VECTORS} {_SHAPES} {_NETWORK}".split())
