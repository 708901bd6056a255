//! Limits and times to live, with their defaults.

use std::fmt;
use std::time::Duration;

use toml::Spanned;

use super::fault;
use crate::definition::document;
use crate::definition::error::Fault;
use crate::definition::{Bounds, Limits, TimeToLive, quantity};
use crate::order::WINDOW_MAX;

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3_600);

/// Run time where nothing is said: a question is answered while someone waits.
const RUN_TIME: Duration = Duration::from_secs(10);
const RUN_TIME_MIN: Duration = Duration::from_secs(1);
const RUN_TIME_MAX: Duration = HOUR;

/// Rows where nothing is said.
const ROWS: u32 = 1_000;
const ROWS_MAX: u32 = 100_000;

/// Bytes where nothing is said.
const BYTES: u32 = 256 * 1024;
const BYTES_MIN: u32 = 1024;
const BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Results are kept a year at most.
const KEEP_MAX: Duration = Duration::from_secs(365 * 86_400);

pub(super) fn limits(given: &document::Limits) -> Result<Limits, Fault> {
    let run_time = match &given.run_time {
        Some(text) => within(text, duration(text)?, RUN_TIME_MIN, RUN_TIME_MAX, "1s to 1h")?,
        None => RUN_TIME,
    };
    let rows = match &given.rows {
        Some(rows) => within(rows, *rows.get_ref(), 1, ROWS_MAX, "1 to 100000")?,
        None => ROWS,
    };
    let bytes = match &given.bytes {
        Some(text) => within(text, bytes(text)?, BYTES_MIN, BYTES_MAX, "1 KiB to 16 MiB")?,
        None => BYTES,
    };
    Ok(Limits { run_time, rows, bytes })
}

pub(super) fn time_to_live(given: &document::TimeToLive) -> Result<TimeToLive, Fault> {
    let gather = Bounds { default: HOUR, min: Duration::from_secs(60), max: WINDOW_MAX };
    let keep = Bounds { default: DAY, min: HOUR, max: 30 * DAY };
    Ok(TimeToLive {
        gather: bounds(given.gather.as_ref(), gather, WINDOW_MAX)?,
        keep: bounds(given.keep.as_ref(), keep, KEEP_MAX)?,
    })
}

fn bounds(
    given: Option<&Spanned<document::Bounds>>,
    mut bounds: Bounds,
    most: Duration,
) -> Result<Bounds, Fault> {
    let Some(place) = given else { return Ok(bounds) };
    let given = place.get_ref();
    if let Some(text) = &given.max {
        bounds.max = within(
            text,
            duration(text)?,
            Duration::from_secs(1),
            most,
            &format!("at most {}d", most.as_secs() / 86_400),
        )?;
    }
    if let Some(text) = &given.min {
        bounds.min = duration(text)?;
    }
    match &given.default {
        Some(text) => bounds.default = duration(text)?,
        // What is not said keeps within what is.
        None => bounds.default = bounds.default.min(bounds.max).max(bounds.min),
    }
    if given.min.is_none() {
        bounds.min = bounds.min.min(bounds.default);
    }
    if given.max.is_none() {
        bounds.max = bounds.max.max(bounds.default).min(most);
    }
    if bounds.min > bounds.default || bounds.default > bounds.max {
        return Err(fault(place, "wanted min <= default <= max"));
    }
    Ok(bounds)
}

fn duration(text: &Spanned<String>) -> Result<Duration, Fault> {
    quantity::duration(text.get_ref()).ok_or_else(|| {
        fault(text, format!("{:?} is no duration; wanted one such as 10s, 5m, 1h or 7d", text.get_ref()))
    })
}

fn bytes(text: &Spanned<String>) -> Result<u32, Fault> {
    let bytes = quantity::bytes(text.get_ref()).ok_or_else(|| {
        fault(text, format!("{:?} is no size; wanted one such as 64 KiB or 1 MiB", text.get_ref()))
    })?;
    // What doesn't fit is above every maximum.
    Ok(u32::try_from(bytes).unwrap_or(u32::MAX))
}

fn within<T: PartialOrd + fmt::Debug, P>(
    place: &Spanned<P>,
    value: T,
    min: T,
    max: T,
    wanted: &str,
) -> Result<T, Fault> {
    if value < min || value > max {
        return Err(fault(place, format!("{value:?}; wanted {wanted}")));
    }
    Ok(value)
}
