//! Runs of sequences.

/// First and last of each run of sequences, in order.
pub type Ranges = Vec<(u64, u64)>;

/// How many sequences are in ranges.
pub fn count(ranges: &[(u64, u64)]) -> u64 {
    ranges.iter().fold(0, |sum: u64, (from, to)| sum.saturating_add(to.saturating_sub(*from).saturating_add(1)))
}

/// What is in `ranges` and not in `others`; both are in order and without overlaps.
pub fn without(ranges: &[(u64, u64)], others: &[(u64, u64)]) -> Ranges {
    let mut rest = Ranges::new();
    for &(from, to) in ranges {
        // The first sequence that is not dealt with; nothing follows the last one there can be.
        let mut next = Some(from);
        let first = others.partition_point(|(_, end)| *end < from);
        for &(start, end) in others[first..].iter().take_while(|(start, _)| *start <= to) {
            rest.extend(next.filter(|from| *from < start).map(|from| (from, start - 1)));
            next = end.checked_add(1);
        }
        rest.extend(next.filter(|from| *from <= to).map(|from| (from, to)));
    }
    rest
}

/// Whether a sequence is in ranges.
pub fn contains(ranges: &[(u64, u64)], seq: u64) -> bool {
    let first = ranges.partition_point(|(_, end)| *end < seq);
    ranges.get(first).is_some_and(|(start, _)| *start <= seq)
}

/// What is in both of two lists of ranges.
pub fn common(some: &[(u64, u64)], others: &[(u64, u64)]) -> Ranges {
    without(some, &without(some, others))
}

/// What is in either of two lists of ranges.
pub fn union(some: &[(u64, u64)], others: &[(u64, u64)]) -> Ranges {
    let mut all = [some, others].concat();
    all.sort_unstable();
    let mut merged: Ranges = Vec::new();
    for (from, to) in all {
        match merged.last_mut() {
            Some((_, end)) if from <= end.saturating_add(1) => *end = to.max(*end),
            _ => merged.push((from, to)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_taken_from_ranges() {
        assert_eq!(without(&[(1, 10)], &[]), [(1, 10)]);
        assert_eq!(without(&[(1, 10)], &[(1, 1), (4, 5), (9, 12)]), [(2, 3), (6, 8)]);
        assert_eq!(without(&[(1, 3), (5, 7)], &[(3, 5)]), [(1, 2), (6, 7)]);
        assert_eq!(without(&[(5, 7)], &[(1, 20)]), []);
        let inside = (1..10).filter(|seq| contains(&[(2, 3), (6, 8)], *seq)).collect::<Vec<_>>();
        assert_eq!(inside, [2, 3, 6, 7, 8]);
        assert_eq!(common(&[(1, 5), (8, 9)], &[(4, 8)]), [(4, 5), (8, 8)]);
    }
}
