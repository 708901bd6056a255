//! [`Layout`]: how many shards there are, and whether each has descriptors of its own.
//!
//! A session is a descriptor. Where a process may not have as many as there may be sessions, and nobody raises the limit, a shard takes a
//! table of its own, with the same limit again.

use crate::config::Config;

/// Descriptors that a table has besides connections: the store, listeners, runtimes, logs.
const OTHERS: u64 = 256;

/// Shards get connections by a hash of their addresses, so that one has up to this part more than its share.
const UNEVEN: f64 = 1.05;

/// Who has which table of descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tables {
    /// The process has one.
    Shared,
    /// Each shard has one.
    Own,
}

/// The shards of a Switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// How many there are.
    pub(crate) shards: u16,
    /// Which tables they have.
    pub(crate) tables: Tables,
    /// Connections of clients that they have descriptors for.
    pub(crate) connections_max: u64,
    /// Connections of clients that the configuration lets in.
    pub(crate) connections_wanted: u64,
}

impl Layout {
    /// Lays shards out for a table of at most so many descriptors.
    pub(crate) fn of(config: &Config, descriptors_max: u64) -> Self {
        let (clients, operators) = (&config.sessions, &config.operators);
        let sum = |parts: [u32; 3]| parts.into_iter().map(u64::from).sum::<u64>();
        let wanted = sum([clients.sessions_max, clients.handshakes_max, clients.waiting_max]);
        let operators = sum([operators.connections_max, operators.handshakes_max, operators.waiting_max]);
        let room = descriptors_max.saturating_sub(OTHERS);
        let shards = config.shard_count();
        if wanted.saturating_add(operators) <= room {
            return Self {
                shards,
                tables: Tables::Shared,
                connections_max: wanted,
                connections_wanted: wanted,
            };
        }
        let shards = if config.shards > 0 { shards } else { shards.max(needed(wanted, room, config)) };
        // One shard alone would gain nothing.
        let (tables, connections_max) = match shards {
            1 => (Tables::Shared, room.saturating_sub(operators)),
            _ => (Tables::Own, u64::from(shards).saturating_mul(even(room))),
        };
        Self { shards, tables, connections_max: connections_max.min(wanted), connections_wanted: wanted }
    }

    /// Tells of it where it is not what one would expect.
    pub(crate) fn log(&self, descriptors_max: u64) {
        let Self { shards, tables, connections_max, connections_wanted } = *self;
        if tables == Tables::Own {
            tracing::info!(
                shards,
                descriptors_max,
                "each shard has descriptors of its own, since the process has not enough for `sessions.sessions_max`"
            );
        }
        if connections_max < connections_wanted {
            tracing::warn!(
                shards,
                descriptors_max,
                connections_max,
                connections_wanted,
                "there are not enough descriptors for all the connections that the Switch may hold; fix: raise LimitNOFILE, or `shards`, \
                 or lower `sessions.sessions_max`"
            );
        }
    }
}

/// Returns the shards that it takes to have descriptors for so many connections, as far as there may be so many.
fn needed(wanted: u64, room: u64, config: &Config) -> u16 {
    let shards = wanted.div_ceil(even(room).max(1));
    // Each lets two handshakes be in progress at least.
    let most = u64::from(config.sessions.handshakes_max / 2).clamp(1, Config::SHARDS_MAX.into());
    u16::try_from(shards.min(most)).unwrap_or(Config::SHARDS_MAX)
}

/// Returns the even share at which a shard that gets more than its share fills its table.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a limit of descriptors is far below 2⁵²"
)]
fn even(room: u64) -> u64 {
    (room as f64 / UNEVEN) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(shards: u16, sessions_max: u32) -> Config {
        let mut config = Config { shards, ..Config::default() };
        config.sessions.sessions_max = sessions_max;
        config
    }

    #[test]
    fn a_process_with_descriptors_for_all_has_one_table_and_the_shards_it_was_told() {
        let layout = Layout::of(&config(3, 100_000), 1 << 20);

        assert_eq!((layout.shards, layout.tables), (3, Tables::Shared));
        assert_eq!(layout.connections_max, layout.connections_wanted);
    }

    #[test]
    fn where_there_are_fewer_there_are_more_shards_with_a_table_each() {
        let layout = Layout::of(&config(0, 100_000), 20_000);

        assert_eq!((layout.shards, layout.tables), (6, Tables::Own));
        assert_eq!(layout.connections_max, layout.connections_wanted);
    }

    #[test]
    fn who_says_how_many_shards_there_are_has_as_many_and_hears_what_they_hold() {
        let layout = Layout::of(&config(2, 100_000), 20_000);

        assert_eq!((layout.shards, layout.tables), (2, Tables::Own));
        assert_eq!(layout.connections_max, 37_606);
        assert!(layout.connections_max < layout.connections_wanted);
    }

    #[test]
    fn a_shard_alone_has_the_table_of_the_process() {
        let layout = Layout::of(&config(1, 100_000), 20_000);

        assert_eq!((layout.shards, layout.tables), (1, Tables::Shared));
        assert!(layout.connections_max < 20_000);
    }

    #[test]
    fn each_shard_has_room_for_two_handshakes() {
        let mut config = config(0, 1_000_000);
        config.sessions.handshakes_max = 64;

        assert_eq!(Layout::of(&config, 1_024).shards, 32.max(config.shard_count()));
    }
}
