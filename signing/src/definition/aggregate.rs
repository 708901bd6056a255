//! What the SQL of an aggregate may call: authors are told by the list that the Switch goes by.

/// Functions that an aggregate may call: those that only compute. Left out is what gives another value each time, what reaches outside of the
/// query, and what nobody sums up with (`zeroblob`). `printf` and `format` make a text as long as somebody says, and `replace`, `hex` and
/// `group_concat` do the like: the Switch's sandbox bounds each value, and ends what takes too much together. It lets no other function through,
/// and lint tells of them before.
#[rustfmt::skip]
pub const AGGREGATE_FUNCTIONS: &[&str] = &[
    "->", "->>", "abs", "avg", "char", "coalesce", "concat", "concat_ws", "count", "cume_dist", "current_date", "current_time",
    "current_timestamp", "date", "datetime", "dense_rank", "first_value", "format", "glob", "group_concat", "hex", "if", "ifnull", "iif",
    "instr", "json", "json_array", "json_array_length", "json_extract", "json_group_array", "json_group_object", "json_object", "json_quote",
    "json_type", "json_valid", "julianday", "lag", "last_value", "lead", "length", "like", "likelihood", "likely", "lower", "ltrim", "max",
    "min", "nth_value", "ntile", "nullif", "octet_length", "percent_rank", "printf", "quote", "rank", "replace", "round", "row_number",
    "rtrim", "sign", "soundex", "strftime", "string_agg", "substr", "substring", "sum", "time", "timediff", "total", "trim", "typeof",
    "unhex", "unicode", "unixepoch", "unlikely", "upper",
];
