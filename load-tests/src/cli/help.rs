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
  muster-load connect --sessions 2000 --suite hybrid

64 handshakes are under way at once, and the next begins when one has ended: connects a second are what the server takes, and a
connect's time is its own, from its dial.";

pub(super) const IDLE: &str = "Examples:
  muster-load idle --sessions 18000 --plot --report idle.html
  muster-load idle --sessions 1000 --home DIR -o json      # `bytes_per_session` of a `muster dev --dir DIR`
  muster-load idle --sessions 5000 --peer nats --peer mosquitto

`bytes_per_session` is what the server's PSS grew by between a tenth of the sessions and all of them, divided by those that came between;
it is read once it has settled (NATS' only after Go's collector, which waits for two minutes). A run of fewer than 1,000 sessions,
or one in which memory did not grow, is refused.";

pub(super) const BROADCAST: &str = "Examples:
  muster-load broadcast --sessions 18000
  muster-load broadcast --sessions 18000 --burst 10 --peer nats --report broadcast.html --svg broadcast.svg

Latency counts from the call that submits the order, at every device. Each device acks, as a client does; CPU has all that the
server does from the submission to the last ack. To prepare the order comes before, and is told beside it. A peer's devices answer
each message with a short one, which the publisher takes.";

pub(super) const ASK: &str = "Examples:
  muster-load ask --sessions 2000
  muster-load ask --sessions 18000 --rounds 5 --tolerance 15% -o json
  muster-load ask --sessions 18000 --rounds 5 --peer nats --report ask.html
  muster-load ask --sessions 100 --home DIR --promises promises.jsonl
  muster-load ask --sessions 500 --home ~/.muster --operator localhost:4001 --switch localhost:4000 --pid 4711

A peer's devices answer a message as long as the order with a short one: nobody stores it, and there is no ledger.
With --home the simulated devices are removed from the Switch at the end.";

pub(super) const STORM: &str = "Examples:
  muster-load storm --sessions 15000
  muster-load storm --sessions 15000 --peer nats --report storm.html

It kills the server, so it always starts one of its own. Devices come back after a pause by chance of at most 0.1 s, twice as
long after each attempt in vain, at most 2 s. Of each message every device counts that had a session when it was to be sent, however late it comes.";

pub(super) const HOLD: &str = "Examples:
  muster-load hold --sessions 15000 --for 10m --report hold.html
  muster-load hold --sessions 1000 --for 30s --ping-interval 5s

Nothing but heartbeats goes on meanwhile. Every session has to stand to the end, have its heartbeats, and answer one question then.";

pub(super) const SLOW_READERS: &str = "Examples:
  muster-load slow-readers --sessions 5000
  muster-load slow-readers --sessions 2000 --peer nats

Those who stop reading are sent large messages until the kernel takes no more for them; the run is refused when the Switch's own
metric of what waits (muster_switch_queue_bytes) does not show it, or when nobody was slow any more before the rounds were over.";

pub(super) const FAULTS: &str = "Examples:
  muster-load faults slowloris --sessions 2000 --report slowloris.html
  muster-load faults half-open --sessions 2000 --faulty 1000 --deadline 10s
  muster-load faults duplicate-identity --sessions 2000 -o json
  muster-load faults descriptors --sessions 2000
  muster-load faults memory-cap --sessions 2000 --faulty 1000

The same messages are sent to all without the fault and under it, and the 99th percentiles at healthy devices are compared; the goal is at
most 2. The run is refused when the Switch's own metrics do not show the fault (of half-open sessions each has to be found), when a healthy
session died or a message is missing. Whoever is turned away comes back within a second, sooner than it is told to. What bounds a Switch's
memory is how many sessions it may hold: memory-cap sets that to those there are. `storm` and `slow-readers` are faults, too.";

pub(super) const CHURN: &str = "Examples:
  muster-load churn --sessions 5000 --rate 500 --seconds 30
  muster-load churn --sessions 2000 --peer mosquitto

One schedule for the whole run: each session that comes has its moment, whatever became of those before, and its time counts from there.
The run is refused when fewer than 95 % of the rate came.";

pub(super) const EVENTS: &str = "Examples:
  muster-load events --sessions 2000
  muster-load events --sessions 10000 --each 50 -o json";

pub(super) const SOAK: &str = "Examples:
  muster-load soak --sessions 5000 --for 10m --report soak.html
  muster-load soak --sessions 500 --for 90s --home DIR

One in a hundred sessions goes each second, those that stand longest, so that none stands for long: `hold` is for that. Memory is
judged from two minutes on: in the last quarter at most 3 % and 1 MiB more than in the second.";

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
