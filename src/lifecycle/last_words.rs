use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::nats_conf;
use crate::off_thread::OffThread;
use crate::settings::Settings;

/// Time to read nats.conf.
const PATIENCE: Duration = Duration::from_millis(250);

/// What nats-server says of its configuration, with the operator's own lines where it means those.
pub async fn located(last_lines: String, file: PathBuf, settings: Arc<Settings>) -> String {
    let read = {
        let file = file.clone();
        move || std::fs::read_to_string(file)
    };
    let Some(Ok(text)) = OffThread::default().run(PATIENCE, read).await else { return last_lines };
    let name = file.display().to_string();
    nats_conf::located(&last_lines, &name, &name, &text, &settings)
}
