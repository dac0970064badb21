//! The page and its parts as HTML. Texts of others are escaped by the templates.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use tera::{Context, Tera};

use super::known::Moment;
use super::view::View;

/// The parts of the page that change, by the id of the element that holds them.
pub const SECTIONS: [&str; 8] =
    ["headline", "alerts", "facts", "families", "streams", "consumers", "conditions", "events"];

const TEMPLATES: [(&str, &str); 9] = [
    ("dashboard/alerts.html", include_str!("../../templates/dashboard/alerts.html")),
    ("dashboard.html", include_str!("../../templates/dashboard.html")),
    ("dashboard/headline.html", include_str!("../../templates/dashboard/headline.html")),
    ("dashboard/facts.html", include_str!("../../templates/dashboard/facts.html")),
    ("dashboard/families.html", include_str!("../../templates/dashboard/families.html")),
    ("dashboard/streams.html", include_str!("../../templates/dashboard/streams.html")),
    ("dashboard/consumers.html", include_str!("../../templates/dashboard/consumers.html")),
    ("dashboard/conditions.html", include_str!("../../templates/dashboard/conditions.html")),
    ("dashboard/events.html", include_str!("../../templates/dashboard/events.html")),
];

/// The templates, parsed.
#[derive(Debug)]
pub struct Pages(Tera);

#[derive(Serialize)]
struct Whole<'a> {
    version: &'static str,
    families: [&'static str; crate::domain::DataType::ALL.len()],
    sections: Option<Sections<'a>>,
}

#[derive(Serialize)]
struct Sections<'a> {
    title: String,
    tone: super::known::Tone,
    made: Moment,
    headline: &'a str,
    alerts: &'a str,
    facts: &'a str,
    families: &'a str,
    streams: &'a str,
    consumers: &'a str,
    conditions: &'a str,
    events: &'a str,
}

/// A part of the page: its id and its HTML.
pub type Section = (&'static str, Arc<str>);

impl Pages {
    pub fn new() -> Result<Self, tera::Error> {
        let mut tera = Tera::default();
        tera.autoescape_on([".html"]);
        tera.add_raw_templates(TEMPLATES)?;
        Ok(Self(tera))
    }

    /// Each part that changes.
    pub fn sections(&self, view: &View) -> Result<Vec<Section>, tera::Error> {
        let context = Context::from_serialize(view)?;
        let one = |name: &'static str| Ok((name, self.0.render(&format!("dashboard/{name}.html"), &context)?.into()));
        SECTIONS.into_iter().map(one).collect()
    }

    /// The whole page; without data where there is no view.
    pub fn page(&self, view: Option<&View>) -> Result<String, tera::Error> {
        let families = crate::domain::DataType::ALL.map(|family| family.name());
        let version = env!("CARGO_PKG_VERSION");
        let Some(view) = view else {
            let whole = Whole { version, families, sections: None };
            return self.0.render("dashboard.html", &Context::from_serialize(&whole)?);
        };
        let parts = self.sections(view)?;
        let of = |name: &str| parts.iter().find(|(other, _)| *other == name).map_or("", |(_, html)| html);
        let sections = Sections {
            title: title(view),
            tone: view.headline.tone,
            made: Moment::of(SystemTime::now()),
            headline: of("headline"),
            alerts: of("alerts"),
            facts: of("facts"),
            families: of("families"),
            streams: of("streams"),
            consumers: of("consumers"),
            conditions: of("conditions"),
            events: of("events"),
        };
        let whole = Whole { version, families, sections: Some(sections) };
        self.0.render("dashboard.html", &Context::from_serialize(&whole)?)
    }
}

/// What the tab of the browser says.
pub fn title(view: &View) -> String {
    format!("{} {} – unified-nats", view.headline.sign, view.headline.verdict)
}
