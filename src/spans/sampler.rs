//! Which traces are recorded. Pure.

use super::context::{SpanContext, TraceId};

/// Decides over each trace, so that all who take part in it decide the same.
#[derive(Clone, Copy, Debug)]
pub struct Sampler {
    parent_based: bool,
    /// Traces whose number is below it are recorded.
    threshold: u64,
}

/// Numbers of traces are below it.
const ALL: u64 = 1 << 63;

impl Sampler {
    /// `ratio` is the part of the traces that are recorded, from 0 to 1. With `parent_based` those who began
    /// a trace elsewhere have decided over it.
    pub fn new(parent_based: bool, ratio: f64) -> Self {
        Self { parent_based, threshold: (ratio.clamp(0.0, 1.0) * ALL as f64) as u64 }
    }

    pub fn samples(self, trace: TraceId, parent: Option<SpanContext>) -> bool {
        match parent {
            Some(parent) if self.parent_based => parent.sampled,
            // The numbers that the libraries of OpenTelemetry compare.
            _ => trace.low() >> 1 < self.threshold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::SpanId;
    use super::*;

    #[test]
    fn a_part_of_the_traces_is_recorded_the_same_part_by_everybody() {
        let traces = (0..10_000_u64).map(|n| TraceId::new(u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) + 1));
        let count = |ratio| traces.clone().filter(|trace| Sampler::new(true, ratio).samples(*trace, None)).count();
        assert_eq!((count(0.0), count(1.0)), (0, 10_000));
        let quarter = count(0.25);
        assert!((2300..2700).contains(&quarter), "{quarter}");
        let (some, more) = (Sampler::new(false, 0.1), Sampler::new(false, 0.2));
        assert!(traces.clone().all(|trace| !some.samples(trace, None) || more.samples(trace, None)));
    }

    #[test]
    fn who_began_the_trace_has_decided_where_parents_count() {
        let trace = TraceId::new(7);
        for sampled in [false, true] {
            let parent = Some(SpanContext { trace, span: SpanId::new(1), sampled });
            assert_eq!(Sampler::new(true, 0.0).samples(trace, parent), sampled);
            assert_eq!(Sampler::new(true, 1.0).samples(trace, parent), sampled);
            assert!(!Sampler::new(false, 0.0).samples(trace, parent));
            assert!(Sampler::new(false, 1.0).samples(trace, parent));
        }
    }
}
