//! The known name that a misspelt one most likely means.

/// Below this similarity a suggestion misleads more than it helps.
const SIMILARITY_MIN: f64 = 0.8;

/// The candidate nearest to `name`, comparing dotted names as a whole and by their last part, since a forgotten or
/// wrong section is as common as a misspelt key.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let name = name.to_lowercase();
    let last = last_part(&name);
    candidates
        .into_iter()
        .map(|candidate| {
            let lower = candidate.to_lowercase();
            let whole = strsim::jaro_winkler(&name, &lower);
            let key = strsim::jaro_winkler(last, last_part(&lower)) - 0.02;
            (if whole > key { whole } else { key }, candidate)
        })
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate.to_string())
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    const KNOWN: [&str; 3] = ["server.listen", "server.http_listen", "limits.max_queued"];

    #[test]
    fn finds_typos_and_missing_sections() {
        assert_eq!(nearest("server.lisen", KNOWN).as_deref(), Some("server.listen"));
        assert_eq!(nearest("sever.listen", KNOWN).as_deref(), Some("server.listen"));
        assert_eq!(nearest("listen", KNOWN).as_deref(), Some("server.listen"));
        assert_eq!(
            nearest("server.max_queued", KNOWN).as_deref(),
            Some("limits.max_queued")
        );
        assert_eq!(nearest("zzz", KNOWN), None);
    }
}
