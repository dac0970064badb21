//! How much of what there is is used, and who is behind.

use super::{AlertKind, Candidate, Found, HYSTERESIS, Rules, Seen, Severity};
use crate::domain::Ratio;
use crate::figures;
use crate::health::StreamNumbers;

impl Rules {
    pub(super) fn usage(&self, seen: Seen<'_>, found: &mut Found) {
        self.jetstream(seen, found);
        self.disk(seen, found);
        self.connections(seen, found);
        self.streams(seen, found);
        self.consumers(seen, found);
        families(seen, found);
    }

    /// Storage and memory of JetStream; what a server may have that others run only it knows.
    fn jetstream(&self, seen: Seen<'_>, found: &mut Found) {
        let alerts = &seen.settings.alerts;
        let Some(capacity) = seen.settings.streams.capacity else { return };
        let used = seen.status.observed.jetstream.as_ref().map(|numbers| {
            // Of a cluster the account's numbers are those of all nodes.
            (numbers.server_storage.unwrap_or(numbers.storage), numbers.server_memory.unwrap_or(numbers.memory))
        });
        for (object, threshold, used, most, variable) in [
            ("storage", alerts.disk, used.map(|used| used.0), capacity.max_file, "JETSTREAM_MAX_FILE"),
            ("memory", alerts.memory, used.map(|used| used.1), capacity.max_memory, "JETSTREAM_MAX_MEMORY"),
        ] {
            let Some(threshold) = threshold else { continue };
            let Some(used) = used else {
                found.undecided_of(AlertKind::StoreFull, object);
                continue;
            };
            if self.is_above(AlertKind::StoreFull, object, part(used, most.bytes()), threshold.get()) {
                let [used, most] = [used, most.bytes()].map(bytes);
                let summary = format!("JetStream uses {used} of the {most} of {object} that {variable} allows");
                let action = format!("raise {variable}, or lower the limits of streams; at the end writes are refused");
                let candidate = Candidate::new(AlertKind::StoreFull, object, Severity::Warning, summary, action);
                found.candidates.push(candidate);
            }
        }
    }

    /// The file system that the store is on.
    fn disk(&self, seen: Seen<'_>, found: &mut Found) {
        let Some(threshold) = seen.settings.alerts.disk else { return };
        let Some(disk) = seen.facts.disk else { return found.undecided(AlertKind::DiskLow) };
        let used = disk.total.saturating_sub(disk.free);
        if disk.total > 0 && self.is_above(AlertKind::DiskLow, "", part(used, disk.total), threshold.get()) {
            let [free, total] = [disk.free, disk.total].map(bytes);
            let store = seen.settings.jetstream.store_dir.display();
            let summary = format!("the disk of {store} has {free} left of {total}");
            let action = "make room there or give it a larger disk, before writes are refused";
            found.candidates.push(Candidate::new(AlertKind::DiskLow, "", Severity::Warning, summary, action));
        }
    }

    fn connections(&self, seen: Seen<'_>, found: &mut Found) {
        const OBJECT: &str = "connections";
        // What a server allows that others run is not known.
        let (Some(threshold), None) = (seen.settings.alerts.connections, &seen.settings.external) else { return };
        let Some(server) = &seen.status.observed.server else {
            return found.undecided_of(AlertKind::Unhealthy, OBJECT);
        };
        let most = seen.settings.server.limits.max_connections.unsigned_abs();
        if self.is_above(AlertKind::Unhealthy, OBJECT, part(server.connections, most), threshold.get()) {
            let summary = format!("{} of {most} connections of clients are in use", server.connections);
            let action = "find out who opens them, or raise NATS_MAX_CONNECTIONS; beyond it clients are sent away";
            found.candidates.push(Candidate::new(AlertKind::Unhealthy, OBJECT, Severity::Warning, summary, action));
        }
    }

    fn streams(&self, seen: Seen<'_>, found: &mut Found) {
        let observed = &seen.status.observed;
        // Without a server what was seen of the streams is of the past.
        let Some(missing) = observed.missing.as_ref().filter(|_| seen.status.generation.is_some()) else {
            for kind in [AlertKind::StreamMissing, AlertKind::StreamConflict, AlertKind::StreamNearLimit] {
                found.undecided(kind);
            }
            return;
        };
        for stream in missing {
            let summary = format!("stream {stream} is declared and does not exist, or does not answer");
            let action = "run `unified-nats streams plan` to see what stands in the way";
            let candidate =
                Candidate::new(AlertKind::StreamMissing, stream.as_str(), Severity::Critical, summary, action);
            found.candidates.push(candidate);
        }
        let mut last = None;
        for conflict in &observed.conflicts {
            // One alert for a stream; the plan names them all.
            if last.replace(&conflict.stream) == Some(&conflict.stream) {
                continue;
            }
            let summary = format!("stream {} cannot become as it is declared: {}", conflict.stream, conflict.what);
            let action = "run `unified-nats streams plan`, and change the declaration or the stream";
            let candidate =
                Candidate::new(AlertKind::StreamConflict, conflict.stream.as_str(), Severity::Warning, summary, action);
            found.candidates.push(candidate);
        }
        let Some(threshold) = seen.settings.alerts.stream else { return };
        for stream in &observed.streams {
            self.limits(stream, threshold, found);
        }
    }

    fn limits(&self, stream: &StreamNumbers, threshold: Ratio, found: &mut Found) {
        let text = |what: &str, number: u64| match what {
            "bytes" => bytes(number),
            _ => format!("{number} {what}"),
        };
        let limits = [("messages", stream.messages, stream.max_messages), ("bytes", stream.bytes, stream.max_bytes)];
        for (what, used, most) in limits {
            let Some(most) = most else { continue };
            let object = format!("{} {what}", stream.name);
            if !self.is_above(AlertKind::StreamNearLimit, &object, part(used, most), threshold.get()) {
                continue;
            }
            let (severity, then) = match stream.refuses_when_full {
                true => (Severity::Critical, "then it refuses new messages"),
                false => (Severity::Warning, "then its oldest messages give way"),
            };
            let summary = {
                let (used, most) = (text(what, used), text(what, most));
                format!("stream {} holds {used} of {most}; {then}", stream.name)
            };
            let action = "raise the limit of the stream, or have it keep messages for a shorter time";
            found.candidates.push(Candidate::new(AlertKind::StreamNearLimit, object, severity, summary, action));
        }
    }

    fn consumers(&self, seen: Seen<'_>, found: &mut Found) {
        let Some(most) = seen.settings.alerts.consumer_lag else { return };
        let consumers = seen.status.observed.consumers.as_ref().filter(|_| seen.status.generation.is_some());
        let Some(consumers) = consumers else { return found.undecided(AlertKind::ConsumerLag) };
        for consumer in consumers {
            let object = format!("{} {}", consumer.stream, consumer.name);
            let was = self.firing.contains(&(AlertKind::ConsumerLag, object.clone()));
            let threshold = if was { most.get() as f64 * HYSTERESIS } else { most.get() as f64 };
            // At the threshold itself it is not behind too far yet.
            if consumer.pending as f64 <= threshold {
                continue;
            }
            let summary = format!(
                "consumer {} of stream {} is {} messages behind",
                consumer.name, consumer.stream, consumer.pending
            );
            let action = "see whether who reads it still runs and keeps up; what a limit removes it will never see";
            found.candidates.push(Candidate::new(AlertKind::ConsumerLag, object, Severity::Warning, summary, action));
        }
    }
}

/// Families that must not be silent for longer than a time.
fn families(seen: Seen<'_>, found: &mut Found) {
    for (family, allowed) in &seen.settings.alerts.stale_after {
        let Some(silent) = seen.facts.silent.get(family).filter(|_| seen.status.generation.is_some()) else {
            found.undecided_of(AlertKind::FamilyStale, family.name());
            continue;
        };
        if silent >= allowed && seen.facts.told_elsewhere {
            // What we have raised while we led the stream stays open until the family is heard.
            found.undecided_of(AlertKind::FamilyStale, family.name());
        } else if silent >= allowed {
            let summary = format!("no message of {} has come for more than {} s", family.name(), allowed.as_secs_f32());
            let action = "see whether its collector still runs and can publish";
            found.candidates.push(Candidate::new(
                AlertKind::FamilyStale,
                family.name(),
                Severity::Warning,
                summary,
                action,
            ));
        }
    }
}

fn bytes(number: u64) -> String {
    figures::bytes(number as f64)
}

fn part(used: u64, most: u64) -> f64 {
    if most == 0 { 0.0 } else { used as f64 / most as f64 }
}
