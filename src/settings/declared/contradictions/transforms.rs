//! Subject transforms as nats-server reads them.

/// Why a transform from `src` to `dest` is none, as a phrase that follows what it is.
pub(super) fn mismatch(src: &str, dest: &str) -> Option<String> {
    if dest.is_empty() {
        return None;
    }
    let ends_open = |subject: &str| subject == ">" || subject.ends_with(".>");
    let tokens: Vec<&str> = dest.split('.').collect();
    if tokens.iter().any(|token| token.is_empty()) {
        return Some("must not have an empty token in dest".into());
    }
    if tokens.contains(&"*") {
        return Some("must not have * in dest: write {{wildcard(1)}} for the first one of src, and so on".into());
    }
    if tokens[..tokens.len() - 1].contains(&">") {
        return Some("must not have > before the end of dest".into());
    }
    if ends_open(src) != ends_open(dest) {
        return Some("must end with > both, or neither of them".into());
    }
    let wildcards = src.split('.').filter(|token| *token == "*").count();
    let beyond = |token: &&str| index_of(token).is_some_and(|index| index == 0 || index > wildcards);
    let token = tokens.iter().find(|token| beyond(token))?;
    Some(format!("must not ask for more in dest than src has: {token} with {wildcards} wildcards"))
}

/// The number in `$1` and in `{{wildcard(1)}}`; other functions are for the server to judge.
fn index_of(token: &str) -> Option<usize> {
    if let Some(number) = token.strip_prefix('$') {
        return number.parse().ok();
    }
    let inner = token.strip_prefix("{{")?.strip_suffix("}}")?.trim();
    let inner = inner.strip_prefix("wildcard(").or_else(|| inner.strip_prefix("Wildcard("))?;
    inner.strip_suffix(')')?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_fit_each_other() {
        for (src, dest) in [
            ("a.>", "b.>"),
            (">", "b.>"),
            ("a", "b"),
            ("a.*", "b.{{wildcard(1)}}"),
            ("a.*.*", "b.$2.$1"),
            ("a.*", "b.{{partition(3,1)}}"),
            ("a.*.>", "b.>"),
            ("a.>", ""),
        ] {
            assert_eq!(mismatch(src, dest), None, "{src} {dest}");
        }
        for (src, dest) in [
            ("a.>", "b"),
            ("a", "b.>"),
            ("a.*", "b.*"),
            ("a.*", "b.$2"),
            ("a.*", "b.{{wildcard(2)}}"),
            ("a", "b..c"),
            ("a.>", "b.>.c"),
        ] {
            assert!(mismatch(src, dest).is_some(), "{src} {dest}");
        }
    }
}
