//! How keys fold under a delimiter, and where a page begins.

use super::values::successor;
use crate::ListQuery;

/// What a key comes to under a prefix and a delimiter.
pub(crate) fn folded<'a>(key: &'a str, query: &ListQuery) -> Option<&'a str> {
    let delimiter = query.delimiter?;
    let prefix = query.prefix.as_str();
    let at = key.strip_prefix(prefix)?.find(delimiter)?;
    Some(&key[..prefix.len() + at + delimiter.len_utf8()])
}

/// The least key of the page. A cursor is the last key or the last common prefix shown; one is told from the other by
/// the delimiter, since a key that contains it is never shown as a file.
pub(crate) fn first(query: &ListQuery) -> Vec<u8> {
    let prefix = query.prefix.as_str().as_bytes();
    let Some(after) = &query.after else { return prefix.to_vec() };
    let first = match folded(after, query) {
        Some(common) if common == after => successor(after.as_bytes()),
        _ => [after.as_bytes(), &[0]].concat(),
    };
    first.max(prefix.to_vec())
}
