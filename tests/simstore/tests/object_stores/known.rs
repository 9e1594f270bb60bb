//! What servers and clients are known not to do. A line here is a fact to work around, not an excuse: the documentation of
//! stores says the same in words.

use super::list::Known;

/// `whose` is a server or, where every server behind that client shows it, a dialect.
const fn never(whose: &'static str, case: &'static str, what: &'static str) -> Known {
    Known {
        whose,
        case,
        always: true,
        what,
    }
}

pub(crate) const KNOWN: &[Known] = &[
    never("memory", "completion_after_abort", "forgets the parts, not the upload"),
    never("local", "sorted_by_key", "lists in the file system's order"),
    never("local", "file_and_folder_of_one_name", "is a file system"),
    never("local", "update", "has no conditional update"),
    never("local", "update_of_missing", "has no conditional update"),
    never("local", "update_race", "has no conditional update"),
    // Clients.
    never("s3", "copy_if_absent", "has no copy onto a free key only"),
    never(
        "azure",
        "suffix_ranges",
        "has no suffix ranges; readers ask for the size first",
    ),
    never(
        "azure",
        "listed_metadata",
        "lists entity tags without the quotes that headers have",
    ),
    never(
        "azure",
        "completion_after_abort",
        "drops no blocks; they expire after a week",
    ),
    never(
        "azure",
        "last_completion_wins",
        "drops the blocks of other uploads when one completes",
    ),
    // apache/arrow-rs-object-store#712, in 0.13.2.
    never(
        "gcs",
        "copy",
        "copies onto free keys only: the client has the two modes exchanged",
    ),
    never(
        "gcs",
        "copy_if_absent",
        "overwrites: the client has the two modes exchanged",
    ),
    // Servers.
    never(
        "azurite",
        "sorted_by_key",
        "sorts by UTF-16, so that characters beyond U+FFFF come before some others",
    ),
    never(
        "azurite",
        "from_an_offset",
        "ignores startFrom and lists from the beginning",
    ),
    never("azurite", "backslash_in_a_key", "takes it for a slash"),
];
