//! Clustering with other nodes.

use std::num::NonZeroU16;

use super::host::Host;
use super::reader::Reader;
use super::url::parse_url;
use super::variables::*;
use crate::domain::{Secret, ServerName};

#[derive(Clone)]
pub struct ClusterSettings {
    /// Cluster names follow the rule of server names.
    pub name: ServerName,
    pub host: Host,
    pub port: NonZeroU16,
    pub routes: Vec<String>,
    pub advertise: Option<String>,
    pub credentials: Option<(String, Secret)>,
}

impl std::fmt::Debug for ClusterSettings {
    /// Without the routes, whose URLs may hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, host, port, routes, advertise, credentials } = self;
        f.debug_struct("ClusterSettings")
            .field("name", name)
            .field("listen", &(host, port))
            .field("routes", &routes.len())
            .field("advertise", advertise)
            .field("credentials", credentials)
            .finish()
    }
}

impl ClusterSettings {
    /// [`None`] when clustering is off.
    pub fn read(reader: &mut Reader, server_host: &Host) -> Option<Self> {
        let enabled = reader.bool(&NATS_CLUSTER_ENABLED);
        let name = reader.required(&NATS_CLUSTER_NAME, |text| text.parse().map_err(|e| format!("it {e}")));
        let host = reader.host(&NATS_CLUSTER_HOST, Some(server_host));
        let port = reader.port(&NATS_CLUSTER_PORT);
        let routes = reader.urls(&NATS_CLUSTER_ROUTES, &["nats", "nats-route"]);
        let advertise = reader.optional(&NATS_CLUSTER_ADVERTISE, |text| {
            parse_url(&format!("nats://{text}"), &["nats"]).map(|_| text.to_owned())
        });
        let username = reader.text(&NATS_CLUSTER_USERNAME);
        let password = reader.secret(&NATS_CLUSTER_PASSWORD);
        if password.as_ref().is_some_and(|p| p.expose().starts_with("$2")) {
            // It is also sent to other nodes, so it cannot be hashed for nats-server.
            reader.refuse(&NATS_CLUSTER_PASSWORD, "nats-server takes one that begins with $2 for a bcrypt hash");
        }
        if !enabled {
            return None;
        }
        if routes.is_empty() && !reader.is_set(&NATS_CLUSTER_ROUTES) {
            reader.problems.add(
                "NATS_CLUSTER_ROUTES",
                "nothing",
                "a cluster needs at least one route: nats-server ends at once as a cluster of one with JetStream",
                "name the other nodes, for example nats-route://node2:6222,nats-route://node3:6222, or set \
                 NATS_CLUSTER_ENABLED=false",
            );
        }
        let credentials = match (username, password) {
            (Some(username), Some(password)) => Some((username, password)),
            (None, None) => None,
            _ => {
                reader.problems.add(
                    "NATS_CLUSTER_USERNAME, NATS_CLUSTER_PASSWORD",
                    "one without the other",
                    "they go together",
                    "set both or none",
                );
                None
            }
        };
        Some(Self { name, host, port, routes, advertise, credentials })
    }
}
