//! Examples and exit codes of each command.

pub(super) const ALL: &str = "Examples:
  muster-load idle --sessions 18000 --peer nats --peer mosquitto
  muster-load broadcast --sessions 18000 --peer nats --report broadcast.html
  muster-load idle --sessions 1000 --home DIR -o json      # a `muster dev --dir DIR` that runs
  muster-load ask --sessions 18000
  muster export | muster-load check -

Exit codes: 0 the run counts, 1 it does not (the reason is told), 2 usage, 130 interrupted.
Figures of a debug build compare with nothing: build with --release.";

pub(super) const CONNECT: &str = "Examples:
  muster-load connect --sessions 2000
  muster-load connect --sessions 2000 --peer nats --peer mosquitto -o json
  muster-load connect --sessions 2000 --suite hybrid";

pub(super) const IDLE: &str = "Examples:
  muster-load idle --sessions 18000 --plot --report idle.html
  muster-load idle --sessions 1000 --home DIR -o json      # `bytes_per_session` of a `muster dev --dir DIR`
  muster-load idle --sessions 5000 --peer nats --peer mosquitto

`bytes_per_session` is the growth of the server's PSS, once the sessions are idle, divided by the sessions. A few sessions come
and go before the first reading, so that lazily built tables count for nobody.";

pub(super) const BROADCAST: &str = "Examples:
  muster-load broadcast --sessions 18000
  muster-load broadcast --sessions 18000 --burst 10 --peer nats --report broadcast.html --svg broadcast.svg

Latency counts from the call that submits the order, at every device; CPU has all that the server does for it.";

pub(super) const ASK: &str = "Examples:
  muster-load ask --sessions 2000
  muster-load ask --sessions 18000 --rounds 5 -o json
  muster-load ask --sessions 100 --home DIR --promises promises.jsonl
  muster-load ask --sessions 500 --home ~/.muster --operator localhost:4001 --switch localhost:4000 --pid 4711";

pub(super) const STORM: &str = "Examples:
  muster-load storm --sessions 15000
  muster-load storm --sessions 2000 --report storm.html

It kills the Switch, so it always starts one of its own.";

pub(super) const SLOW_READERS: &str = "Examples:
  muster-load slow-readers --sessions 5000
  muster-load slow-readers --sessions 2000 --peer nats";

pub(super) const CHURN: &str = "Examples:
  muster-load churn --sessions 5000 --rate 500 --seconds 30
  muster-load churn --sessions 2000 --peer mosquitto";

pub(super) const EVENTS: &str = "Examples:
  muster-load events --sessions 2000
  muster-load events --sessions 10000 --each 50 -o json";

pub(super) const SOAK: &str = "Examples:
  muster-load soak --sessions 5000 --for 10m --report soak.html
  muster-load soak --sessions 500 --for 90s --home DIR";

pub(super) const CRL: &str = "Examples:
  muster-load crl --entries 1000000
  muster-load crl --entries 50000 --sessions 100 -o json";

pub(super) const PROXY: &str = "Examples:
  muster-load proxy --listen 127.0.0.1:5000 --to 127.0.0.1:4000 --delay 50ms --jitter 10ms --loss 1%
  muster-load proxy --listen 127.0.0.1:0 --to 127.0.0.1:4000 --cut-after 30s --seed 7
  muster-load proxy --listen 127.0.0.1:5000 --to 127.0.0.1:4000 --slow-read 1KiB/s --corrupt 0.01%

One JSON line on standard output says where it listens, and one each fault: its connection, direction, moment and, for a turned
bit, the place in the stream. The same seed, connections in the same order and the same bytes give the same faults. What is lost
comes a retransmission (200 ms) later, as TCP has it.";

pub(super) const CHECK: &str = "Examples:
  muster export >export.jsonl && muster-load check export.jsonl
  muster-load ask --sessions 100 --home HOME --promises promises.jsonl
  muster-load check export.jsonl --promises promises.jsonl

Exit codes: 0 nothing is wrong, 1 something is, or a file cannot be read, 2 usage.
An export that broke off is not whole: look at the exit code of `muster export`, in a pipe with
`set -o pipefail; muster export | muster-load check -`.";
