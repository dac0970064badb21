/// Major and minor version of a nats-server.
pub type ServerVersion = (u32, u32);

/// The oldest nats-server that the program works with.
pub const OLDEST_SERVER: ServerVersion = (2, 10);
