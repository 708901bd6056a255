//! What a Switch tells of itself at its admin address.

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
    Ok(values(&answer, name))
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
}
