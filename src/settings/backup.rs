//! Backups: when, where to, how long, and who can read them.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use super::url::Url;
use super::values::listed;
use super::variables::*;
use crate::domain::{AgeRecipient, Secret};

#[derive(Clone, Debug)]
pub struct BackupSettings {
    pub enabled: bool,
    /// Between two backups.
    pub interval: Duration,
    /// A backup older than this goes.
    pub retention: Duration,
    pub directory: PathBuf,
    /// Between two restores that prove a backup; [`None`]: none is made.
    pub verify_interval: Option<Duration>,
    /// Whom backups are encrypted for; nobody: they are not.
    pub recipients: Vec<AgeRecipient>,
    /// Where backups go besides.
    pub s3: Option<S3Target>,
}

#[derive(Clone, Debug)]
pub struct S3Target {
    pub bucket: String,
    pub region: Option<String>,
    /// [`None`]: the one of AWS.
    pub endpoint: Option<Url>,
    /// What keys begin with, without slashes at its ends.
    pub prefix: Option<String>,
    /// [`None`]: those that the platform gives.
    pub credentials: Option<S3Credentials>,
}

#[derive(Clone, Debug)]
pub struct S3Credentials {
    pub access_key_id: Secret,
    pub secret_access_key: Secret,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl BackupSettings {
    pub fn read(reader: &mut Reader) -> Self {
        let verify_interval = reader.span(&BACKUP_VERIFY_INTERVAL);
        Self {
            enabled: reader.bool(&BACKUP_ENABLED),
            interval: reader.span(&BACKUP_INTERVAL),
            // The range of its variable is far from where this would overflow.
            retention: DAY.saturating_mul(reader.number(&BACKUP_RETENTION_DAYS) as u32),
            directory: reader.path(&BACKUP_DIR).unwrap_or_else(|| "/data/backup".into()),
            verify_interval: (!verify_interval.is_zero()).then_some(verify_interval),
            recipients: reader
                .optional(&BACKUP_ENCRYPTION_RECIPIENTS, |text| listed(text, str::parse))
                .unwrap_or_default(),
            s3: S3Target::read(reader),
        }
    }
}

impl S3Target {
    fn read(reader: &mut Reader) -> Option<Self> {
        let bucket = reader.optional(&BACKUP_S3_BUCKET, parse_bucket);
        let region = reader.text(&BACKUP_S3_REGION);
        let endpoint = reader.url(&BACKUP_S3_ENDPOINT, &["http", "https"]);
        let prefix = reader.text(&BACKUP_S3_PREFIX).map(|prefix| prefix.trim_matches('/').to_owned());
        let credentials = S3Credentials::read(reader);
        if !reader.is_set(&BACKUP_S3_BUCKET) {
            for variable in [&BACKUP_S3_REGION, &BACKUP_S3_ENDPOINT, &BACKUP_S3_PREFIX] {
                if reader.is_set(variable) {
                    let name = variable.name;
                    reader
                        .warnings
                        .push(format!("{name} is set without BACKUP_S3_BUCKET: backups go to BACKUP_DIR alone"));
                }
            }
        }
        Some(Self { bucket: bucket?, region, endpoint, prefix: prefix.filter(|text| !text.is_empty()), credentials })
    }
}

impl S3Credentials {
    fn read(reader: &mut Reader) -> Option<Self> {
        let [id, key] = [&AWS_ACCESS_KEY_ID, &AWS_SECRET_ACCESS_KEY].map(|variable| reader.secret(variable));
        if reader.is_set(&AWS_ACCESS_KEY_ID) != reader.is_set(&AWS_SECRET_ACCESS_KEY) {
            reader.refuse_half(&AWS_ACCESS_KEY_ID, &AWS_SECRET_ACCESS_KEY);
        }
        Some(Self { access_key_id: id?, secret_access_key: key? })
    }
}

fn parse_bucket(text: &str) -> Result<String, String> {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = text.bytes().next().is_some_and(letter) && text.bytes().last().is_some_and(letter);
    let inside = text.bytes().all(|b| letter(b) || b == b'-' || b == b'.') && !text.contains("..");
    if ends && inside && (3..=63).contains(&text.len()) { Ok(text.to_owned()) } else { Err(String::new()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Loaded;
    use crate::settings::tests::load;

    const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

    fn loaded(pairs: &[(&str, &str)]) -> Loaded {
        load(pairs).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn defaults_are_off_and_keep_a_week() {
        let backup = loaded(&[]).settings.backup;
        assert!(!backup.enabled && backup.s3.is_none() && backup.recipients.is_empty());
        assert_eq!((backup.interval.as_secs(), backup.retention), (3600, 7 * DAY));
        assert_eq!((backup.directory, backup.verify_interval), (PathBuf::from("/data/backup"), Some(DAY)));
        assert_eq!(loaded(&[("BACKUP_VERIFY_INTERVAL", "0")]).settings.backup.verify_interval, None);
    }

    #[test]
    fn a_target_has_its_credentials_and_does_not_print_them() {
        let loaded = loaded(&[
            ("BACKUP_S3_BUCKET", "market-backups"),
            ("BACKUP_S3_ENDPOINT", "http://u:tell-nobody@minio:9000"),
            ("BACKUP_S3_PREFIX", "/nats/"),
            ("AWS_ACCESS_KEY_ID", "tell-nobody-id"),
            ("AWS_SECRET_ACCESS_KEY", "tell-nobody-key"),
        ]);
        assert!(!format!("{loaded:?}").contains("tell-nobody"), "{loaded:?}");
        let s3 = loaded.settings.backup.s3.unwrap();
        assert_eq!((s3.bucket.as_str(), s3.prefix.as_deref()), ("market-backups", Some("nats")));
        assert_eq!(s3.endpoint.as_ref().map(Url::as_str), Some("http://u:tell-nobody@minio:9000"));
        assert_eq!(s3.credentials.unwrap().secret_access_key.expose(), "tell-nobody-key");
    }

    #[test]
    fn a_place_in_no_bucket_is_warned_of() {
        let loaded = loaded(&[("BACKUP_S3_REGION", "eu-west-1")]);
        assert!(loaded.warnings.iter().any(|warning| warning.contains("without BACKUP_S3_BUCKET")), "{loaded:?}");
    }

    #[test]
    fn recipients_are_checked_one_by_one() {
        let both = format!("{RECIPIENT}, {RECIPIENT}");
        assert_eq!(loaded(&[("BACKUP_ENCRYPTION_RECIPIENTS", &both)]).settings.backup.recipients.len(), 2);
        let identity = format!("AGE-SECRET-KEY-1{}", "TELL".repeat(15));
        let problems = load(&[("BACKUP_ENCRYPTION_RECIPIENTS", &identity)]).unwrap_err();
        assert_eq!(problems.list.len(), 1, "{problems}");
        assert!(!problems.to_string().contains("TELL"), "an identity opens backups: {problems}");
    }
}
