/// Which checks to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CheckScope {
    /// The NATS port answers, /healthz, and the supervisor's /readyz.
    Quick,
    /// Everything below.
    Full,
    /// A client gets in with the configured credentials.
    Connectivity,
    /// nats-server's HTTP monitoring.
    Http,
    /// JetStream answers.
    Jetstream,
    /// The MARKET_DATA stream exists.
    Stream,
    /// All eight families are captured.
    Datatypes,
}
