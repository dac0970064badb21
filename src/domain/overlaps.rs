//! Which filters share subjects with which, among thousands of them.

use std::collections::HashMap;

use super::Subject;

/// Filters by their tokens, each with the stream that has it.
#[derive(Default)]
pub struct Overlaps<'a> {
    below: HashMap<&'a str, Overlaps<'a>>,
    /// Filters that end here.
    here: Vec<Claim<'a>>,
    /// Filters that go on from here with `>`.
    onward: Vec<Claim<'a>>,
}

/// A filter of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    /// Its number among the streams that were claimed for.
    pub stream: usize,
    pub subject: &'a Subject,
}

impl<'a> Overlaps<'a> {
    pub fn claim(&mut self, stream: usize, subject: &'a Subject) {
        let mut node = self;
        for token in subject.as_str().split('.') {
            if token == ">" {
                return node.onward.push(Claim { stream, subject });
            }
            node = node.below.entry(token).or_default();
        }
        node.here.push(Claim { stream, subject });
    }

    /// A filter that shares subjects with this one and belongs to a stream that `concerns`.
    pub fn find(&self, subject: &Subject, concerns: &impl Fn(usize) -> bool) -> Option<Claim<'a>> {
        let tokens: Vec<_> = subject.as_str().split('.').collect();
        self.find_below(&tokens, concerns)
    }

    fn find_below(&self, tokens: &[&str], concerns: &impl Fn(usize) -> bool) -> Option<Claim<'a>> {
        let of = |claims: &[Claim<'a>]| claims.iter().find(|claim| concerns(claim.stream)).copied();
        let Some((token, rest)) = tokens.split_first() else { return of(&self.here) };
        let found = of(&self.onward);
        found.or_else(|| match *token {
            ">" => self.below.values().find_map(|node| node.find_any(concerns)),
            "*" => self.below.values().find_map(|node| node.find_below(rest, concerns)),
            token => [token, "*"].iter().find_map(|token| self.below.get(token)?.find_below(rest, concerns)),
        })
    }

    fn find_any(&self, concerns: &impl Fn(usize) -> bool) -> Option<Claim<'a>> {
        let here = self.here.iter().chain(&self.onward).find(|claim| concerns(claim.stream)).copied();
        here.or_else(|| self.below.values().find_map(|node| node.find_any(concerns)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn they_are_those_that_overlap_one_by_one(
            claimed in proptest::collection::vec(r"([abc*]\.){0,3}([abc*]|>)", 0..12),
            asked in r"([abc*]\.){0,3}([abc*]|>)",
        ) {
            let claimed: Vec<Subject> = claimed.iter().map(|text| text.parse().unwrap()).collect();
            let asked: Subject = asked.parse().unwrap();
            let mut overlaps = Overlaps::default();
            for (stream, subject) in claimed.iter().enumerate() {
                overlaps.claim(stream, subject);
            }
            for (stream, subject) in claimed.iter().enumerate() {
                let found = overlaps.find(&asked, &|other| other == stream);
                prop_assert_eq!(found.is_some(), subject.overlaps(&asked), "{} {}", subject, asked);
            }
            let any = claimed.iter().any(|subject| subject.overlaps(&asked));
            prop_assert_eq!(overlaps.find(&asked, &|_| true).is_some(), any);
        }
    }
}
