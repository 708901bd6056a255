//! What every long-running process shares: configuration, telemetry, shutdown, health, credentials.
