//! What a Switch tells of itself at its admin address.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Beyond what its metrics need.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// The values of one metric, one for each set of labels.
pub(crate) async fn metric(address: &str, name: &str) -> anyhow::Result<Vec<f64>> {
    Ok(values(&metrics(address).await?, name))
}

/// A counter, added up by the values of one of its labels; only what has all of these labels.
pub(crate) async fn counted(
    address: &str,
    name: &str,
    label: &str,
    among: &[(&str, &str)],
) -> anyhow::Result<BTreeMap<String, u64>> {
    Ok(counts(&metrics(address).await?, name, label, among))
}

async fn metrics(address: &str) -> anyhow::Result<String> {
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(DEADLINE, asking).await.context("no answer in time")?;
    let answer = answer.with_context(|| format!("the metrics at {address}"))?;
    if !answer.starts_with("HTTP/1.1 200") {
        bail!("the metrics at {address}: {}", answer.lines().next().unwrap_or("no answer"));
    }
    Ok(answer)
}

/// Reads counters whose labels have neither quotation marks nor commas, as all of ours.
fn counts(text: &str, name: &str, label: &str, among: &[(&str, &str)]) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for line in text.lines() {
        let told = line.strip_prefix(name).and_then(|rest| rest.strip_prefix('{')?.split_once("} "));
        let Some((labels, value)) = told else { continue };
        let value_of = |wanted: &str| {
            let of = |pair: &str| {
                Some(pair.strip_prefix(wanted)?.strip_prefix("=\"")?.strip_suffix('"')?.to_owned())
            };
            labels.split(',').find_map(of)
        };
        let is_among = among.iter().all(|(other, wanted)| value_of(other).as_deref() == Some(*wanted));
        if let (true, Some(found), Ok(count)) = (is_among, value_of(label), value.parse::<u64>()) {
            *all.entry(found).or_default() += count;
        }
    }
    all
}

fn values(text: &str, name: &str) -> Vec<f64> {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        // Another name may begin with this one.
        let is_whole = rest.starts_with('{') || rest.starts_with(' ');
        is_whole.then(|| rest.rsplit(' ').next()?.parse().ok()).flatten()
    };
    text.lines().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_has_a_value_for_each_set_of_labels_and_none_of_another_name() {
        let text =
            "# TYPE a_bytes gauge\na_bytes{shard=\"0\"} 5\na_bytes{shard=\"1\"} 0.5\na_bytes_max 9\nb 1\n";

        assert_eq!(values(text, "a_bytes"), [5.0, 0.5]);
        assert_eq!(values(text, "b"), [1.0]);
        assert!(values(text, "c").is_empty());
    }

    #[test]
    fn a_counter_is_added_up_by_one_label_among_those_with_another() {
        let text = "# TYPE a counter\na{of=\"x\",why=\"late\"} 2\na{of=\"x\",why=\"full\"} 3\na{of=\"y\",why=\"late\"} 5\nab{why=\"late\"} 9\n";
        let late = |count: u64| ("late".to_owned(), count);

        let all = counts(text, "a", "why", &[]);
        let of_x = counts(text, "a", "why", &[("of", "x")]);

        assert_eq!(all, BTreeMap::from([late(7), ("full".to_owned(), 3)]));
        assert_eq!(of_x, BTreeMap::from([late(2), ("full".to_owned(), 3)]));
        assert!(counts(text, "a", "hy", &[]).is_empty());
    }
}
