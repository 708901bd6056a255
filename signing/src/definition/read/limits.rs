//! Limits and times to live, with their defaults.

use std::fmt;
use std::time::Duration;

use toml::Spanned;

use super::fault;
use crate::definition::document;
use crate::definition::error::{Fault, Faults};
use crate::definition::rule::Rule;
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

pub(super) fn limits(given: Option<&document::Limits>, faults: &mut Faults) -> Option<Limits> {
    let Some(given) = given else { return Some(Limits { run_time: RUN_TIME, rows: ROWS, bytes: BYTES }) };
    let run_time = given.run_time.as_ref().map(|text| {
        duration(text).and_then(|time| within(text, time, RUN_TIME_MIN, RUN_TIME_MAX, "1s to 1h"))
    });
    let rows = given.rows.as_ref().map(|rows| within(rows, *rows.get_ref(), 1, ROWS_MAX, "1 to 100000"));
    let bytes = given.bytes.as_ref().map(|text| {
        bytes(text).and_then(|bytes| within(text, bytes, BYTES_MIN, BYTES_MAX, "1 KiB to 16 MiB"))
    });
    let (run_time, rows, bytes) = (or(run_time, RUN_TIME), or(rows, ROWS), or(bytes, BYTES));
    let (run_time, rows, bytes) = (faults.take(run_time), faults.take(rows), faults.take(bytes));
    Some(Limits { run_time: run_time?, rows: rows?, bytes: bytes? })
}

fn or<T>(given: Option<Result<T, Fault>>, default: T) -> Result<T, Fault> {
    given.unwrap_or(Ok(default))
}

pub(super) fn time_to_live(given: &document::TimeToLive, faults: &mut Faults) -> Option<TimeToLive> {
    let gather = Bounds { default: HOUR, min: Duration::from_secs(60), max: WINDOW_MAX };
    let keep = Bounds { default: DAY, min: HOUR, max: 30 * DAY };
    let gather = faults.take(bounds(given.gather.as_ref(), gather, WINDOW_MAX, Rule::GatherBeyondOrder));
    let keep = faults.take(bounds(given.keep.as_ref(), keep, KEEP_MAX, Rule::LimitOutOfRange));
    Some(TimeToLive { gather: gather?, keep: keep? })
}

fn bounds(
    given: Option<&Spanned<document::Bounds>>,
    mut bounds: Bounds,
    most: Duration,
    beyond: Rule,
) -> Result<Bounds, Fault> {
    let Some(place) = given else { return Ok(bounds) };
    let given = place.get_ref();
    if let Some(text) = &given.max {
        bounds.max = duration(text)?;
        let days = most.as_secs() / 86_400;
        if bounds.max > most {
            let longest =
                if beyond == Rule::GatherBeyondOrder { ", the longest window of an order" } else { "" };
            return Err(fault(text, beyond, format!("{:?}", text.get_ref()))
                .wanted(format!("at most {days}d{longest}")));
        }
        within(text, bounds.max, Duration::from_secs(1), most, &format!("1s to {days}d"))?;
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
        let found = format!("min {:?}, default {:?}, max {:?}", bounds.min, bounds.default, bounds.max);
        return Err(fault(place, Rule::TimeToLiveOrder, found).wanted("min <= default <= max"));
    }
    Ok(bounds)
}

fn duration(text: &Spanned<String>) -> Result<Duration, Fault> {
    quantity::duration(text.get_ref()).ok_or_else(|| {
        fault(text, Rule::DurationInvalid, format!("{:?} is no duration", text.get_ref()))
            .wanted("one such as 10s, 5m, 1h or 7d")
    })
}

fn bytes(text: &Spanned<String>) -> Result<u32, Fault> {
    let bytes = quantity::bytes(text.get_ref()).ok_or_else(|| {
        fault(text, Rule::SizeInvalid, format!("{:?} is no size", text.get_ref()))
            .wanted("one such as 64 KiB or 1 MiB")
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
        return Err(fault(place, Rule::LimitOutOfRange, format!("{value:?}")).wanted(wanted));
    }
    Ok(value)
}
