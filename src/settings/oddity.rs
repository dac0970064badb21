//! What editors, shells, chat programs and .env files leave in a text that nobody meant.

/// Marks that word processors and chat programs make of plain ones are among them.
const QUOTES: [char; 23] = [
    '"', '\'', '`', '´', '“', '”', '„', '‟', '‘', '’', '‚', '‛', '«', '»', '‹', '›', '＂', '＇', '「', '」', '『',
    '』', '″',
];

/// As a phrase that follows whose text it is; nothing of the text is shown.
pub(super) fn oddity(text: &str) -> Option<String> {
    let reason = |words: &str| Some(words.to_owned());
    let first = text.starts_with(QUOTES);
    let last = text.ends_with(QUOTES);
    if text.starts_with('\u{feff}') {
        reason("begins with a byte order mark: save the file as UTF-8 without one")
    } else if text.ends_with('\r') {
        reason("ends with a carriage return: save the file with the line ends of Unix")
    } else if text.trim() != text {
        reason("begins or ends with white space")
    } else if let Some(unseen) = text.chars().find(|c| is_unseen(*c)) {
        Some(format!("holds an invisible character (U+{:04X}): type it anew instead of pasting it", u32::from(unseen)))
    } else if first && last && text.chars().count() > 1 {
        reason("is in quotes: .env files that docker reads take them literally")
    } else if first || last {
        reason("begins or ends with a quote that has no other: a part of it may be missing")
    } else {
        None
    }
}

/// Takes no room on a screen: controls, marks of direction, joiners, fillers.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_meant_is_told() {
        for (text, told) in [
            ("'x'", "is in quotes"),
            ("“x”", "is in quotes"),
            ("‘x’", "is in quotes"),
            ("„x“", "is in quotes"),
            ("«x»", "is in quotes"),
            ("”x”", "is in quotes"),
            ("\"\"", "is in quotes"),
            ("'", "a quote that has no other"),
            ("'x", "a quote that has no other"),
            ("x’", "a quote that has no other"),
            ("x\u{200b}", "(U+200B)"),
            ("\u{200b}", "(U+200B)"),
            ("x\u{ad}y", "(U+00AD)"),
            ("x\u{feff}", "(U+FEFF)"),
            ("\u{202e}x", "(U+202E)"),
            ("x\ny", "(U+000A)"),
            ("x\u{3000}", "white space"),
        ] {
            assert!(oddity(text).is_some_and(|oddity| oddity.contains(told)), "{text:?}: {:?}", oddity(text));
        }
        for text in ["x", "it's", "a \"b\" c", "пароль", "密码", "a,b", "x y", "<x>", "p@ss·w0rd…"] {
            assert_eq!(oddity(text), None, "{text:?}");
        }
    }
}
