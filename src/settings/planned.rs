//! Variables of parts that this version does not have: validated all the same, so that a file that
//! passes today passes tomorrow, and named in one warning when they are set to something else than
//! their default.

use super::reader::Reader;
use super::source::Collected;
use super::url::parse_url;
use super::variables::{self, *};

pub fn read(reader: &mut Reader) {
    reader.url(&OTEL_EXPORTER_OTLP_ENDPOINT, &["http", "https"]);
    read_backup(reader);
}

fn read_backup(reader: &mut Reader) {
    reader.bool(&BACKUP_ENABLED);
    reader.span(&BACKUP_INTERVAL);
    reader.number(&BACKUP_RETENTION_DAYS);
    reader.path(&BACKUP_DIR);
    for variable in [&BACKUP_S3_BUCKET, &BACKUP_S3_REGION, &BACKUP_S3_PREFIX] {
        reader.text(variable);
    }
    reader.optional(&BACKUP_S3_ENDPOINT, |text| parse_url(text, &["http", "https"]));
    for variable in [&AWS_ACCESS_KEY_ID, &AWS_SECRET_ACCESS_KEY] {
        reader.secret(variable);
    }
    if reader.is_set(&AWS_ACCESS_KEY_ID) != reader.is_set(&AWS_SECRET_ACCESS_KEY) {
        reader.refuse_half(&AWS_ACCESS_KEY_ID, &AWS_SECRET_ACCESS_KEY);
    }
}

/// The one warning about variables that are set in vain.
pub fn warning(collected: &Collected) -> Option<String> {
    let in_vain: Vec<_> = variables::ALL
        .iter()
        .filter(|variable| {
            let value = (variable.value)(&collected.environment);
            value.is_some() && value != variable.default.fixed()
        })
        .filter_map(|variable| variable.not_yet_implemented.map(|part| format!("{} ({part})", variable.name)))
        .collect();
    (!in_vain.is_empty())
        .then(|| format!("set, but this version does not have what they control: {}", in_vain.join(", ")))
}
