//! Documents made from the list of variables: the reference and `.env.unified`.

use std::fmt::Write;

use super::variables::{ALL, COMPOSE_ONLY, DefaultValue, Variable};

fn sections() -> Vec<(&'static str, Vec<&'static Variable>)> {
    let mut sections: Vec<(&str, Vec<&Variable>)> = Vec::new();
    for variable in ALL {
        match sections.last_mut() {
            Some((section, variables)) if *section == variable.section => variables.push(variable),
            _ => sections.push((variable.section, vec![variable])),
        }
    }
    sections
}

/// The reference of all variables as Markdown tables.
pub fn markdown() -> String {
    let mut text = String::new();
    for (section, variables) in sections() {
        let _ = writeln!(text, "### {section}\n");
        let _ = writeln!(text, "| variable | default | allowed | meaning |\n|---|---|---|---|");
        for v in variables {
            let default = match v.default {
                DefaultValue::Fixed(value) => format!("`{value}`"),
                DefaultValue::Derived(words) => words.to_owned(),
                DefaultValue::Unset => "–".to_owned(),
            };
            let mut notes = String::new();
            if v.secret {
                let _ = write!(notes, ". Secret; also `{}_FILE`", v.name);
            }
            if let Some(part) = v.not_yet_implemented {
                let _ = write!(notes, ". *Acts once {part} arrives*");
            }
            if let Some(when) = v.reloads.describe() {
                let _ = write!(notes, ". {when}");
            }
            let _ = writeln!(text, "| `{}` | {default} | {} | {}{notes} |", v.name, v.allowed(), v.doc);
        }
        text.push('\n');
    }
    text
}

/// The template that operators copy to `.env`. Defaults are comments: a line that sets one would
/// hold on to it when the image, `scripts/up.sh` or a later version has a better one.
pub fn env_file() -> String {
    let mut text = String::from(
        "# Settings of unified-nats. Copy this file to .env and change what you need:\n\
         #   cp .env.unified .env\n\
         # Every line shows a default; take away the leading # to set another value. An empty value\n\
         # means the default. Secrets can come from files instead: NAME_FILE=/run/secrets/name\n",
    );
    for (section, variables) in sections() {
        let _ = writeln!(text, "\n# ==================== {section} ====================");
        for v in variables {
            let default = match v.default {
                DefaultValue::Derived(words) => format!("; default: {words}"),
                _ => String::new(),
            };
            let _ = writeln!(text, "\n# {} ({}{default}).", v.doc, v.allowed());
            let _ = writeln!(text, "#{}={}", v.name, v.default.fixed().unwrap_or_default());
        }
    }
    let _ = writeln!(text, "\n# ==================== Read by docker-compose.unified.yml only ====================\n");
    for (name, default) in COMPOSE_ONLY {
        let _ = writeln!(text, "#{name}={default}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_what_a_reload_takes_over_come_from_the_variables() {
        let reference = markdown();
        for row in [
            "| `API_THREADS` | one per core but one, 1 to 4 | a whole number from 1 to 64 |",
            "| `NATS_MAX_PAYLOAD` | `1MB` | a size from 1 byte to 64MB, not above NATS_MAX_PENDING |",
            "| `NATS_TLS_CERT` | – | the path of a PEM file with the certificate and its chain | Server certificate. \
             SIGHUP takes it over in embedded mode |",
        ] {
            assert!(reference.contains(row), "{row}");
        }
        assert!(!reference.contains("{range}") && !env_file().contains("{range}"));
    }
}
