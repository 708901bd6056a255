use muster_endpoint::{Column, ColumnKind, SandboxProfile, SqlValue};

use super::admission::{PlanColumn, PlanResource};
use super::*;

const NOW_MS: i64 = 1_800_000_000_000;

#[test]
fn an_order_is_on_disk_before_it_is_acked_and_marked_before_it_runs() {
    let mut test = Test::new();

    test.order("1 d");
    assert_eq!(test.effects(), ["recall 1"]);
    test.recalled(1, None, Some("d"));

    assert_eq!(test.effects(), ["intent 1", "acked 1", "start 1", "running 1", "run 1"]);
    test.finish(1);
    assert_eq!(test.effects(), ["result 1 Answered"]);
}

#[test]
fn a_missing_definition_is_asked_for_and_kept() {
    let mut test = Test::new();
    test.order("1 d");
    test.effects();

    test.recalled(1, None, None);
    assert_eq!(test.effects(), ["ask definition"]);
    test.machine.handle_definition(digest("d"), b"d", test.now);

    assert_eq!(test.effects(), ["keep definition", "intent 1", "acked 1", "start 1", "running 1", "run 1"]);
}

#[test]
fn another_definition_than_the_one_asked_for_is_refused() {
    for (sent, told) in [("other", "sent another"), ("", "does not have")] {
        let mut test = Test::new();
        test.order("1 d");
        test.recalled(1, None, None);
        test.effects();

        test.machine.handle_definition(digest("d"), sent.as_bytes(), test.now);

        let effects = test.effects_with_detail();
        assert!(
            effects[0].starts_with("refuse 1 WrongDefinition journaled") && effects[0].contains(told),
            "{effects:?}"
        );
    }
}

#[test]
fn a_definition_that_does_not_come_in_time_is_asked_for_once_more_and_then_refused() {
    let mut test = Test::new();
    test.order("1 d");
    test.recalled(1, None, None);
    test.effects();

    test.now.instant = test.machine.poll_timeout().unwrap();
    test.machine.handle_timeout(test.now);
    assert_eq!(test.effects(), ["ask definition"]);
    test.now.instant = test.machine.poll_timeout().unwrap();
    test.machine.handle_timeout(test.now);

    assert_eq!(test.effects(), ["refuse 1 WrongDefinition journaled"]);
    assert_eq!(test.machine.poll_timeout(), None);
}

#[test]
fn the_same_order_again_is_acked_and_never_started_again() {
    for (state, told) in [
        (JournalState::Intent, "acked 1"),
        (JournalState::Started, "running 1"),
        (JournalState::Done, "acked 1"),
    ] {
        let mut test = Test::new();
        test.order("1 d");
        test.effects();

        test.recalled(1, Some((state, digest("1 d"))), Some("d"));

        assert_eq!(test.effects(), [told], "{state:?}");
    }
}

#[test]
fn the_same_instruction_under_other_bytes_is_a_replay() {
    let mut test = Test::new();
    test.order("1 d again");
    test.effects();

    test.recalled(1, Some((JournalState::Started, digest("1 d"))), Some("d"));

    assert_eq!(test.effects(), ["refuse 1 Replayed"]);
}

#[test]
fn the_same_instruction_under_other_bytes_is_a_replay_while_the_first_waits_for_its_definition() {
    let mut test = Test::new();
    test.order("1 d");
    test.recalled(1, None, None);
    test.effects();

    test.order("1 d");
    assert_eq!(test.effects(), Vec::<String>::new());
    test.order("1 d other");
    assert_eq!(test.effects(), ["refuse 1 Replayed"]);
}

#[test]
fn a_forged_order_does_not_touch_the_journal() {
    let mut test = Test::new();

    test.order("1 d forged");
    assert_eq!(test.effects(), ["refuse 1 BadSignature"]);
    test.order("junk");
    assert_eq!(test.effects(), ["unreadable"]);
}

#[test]
fn what_is_not_admitted_is_remembered_and_answered() {
    let mut test = Test::new();
    test.order("1 wrong-audience");
    test.effects();

    test.recalled(1, None, Some("wrong-audience"));

    assert_eq!(test.effects(), ["refuse 1 WrongAudience journaled"]);
}

#[test]
fn without_a_licence_nothing_runs() {
    let mut test = Test::new();
    test.machine.licence = None;
    test.order("1 d");
    test.effects();

    test.recalled(1, None, Some("d"));

    assert_eq!(test.effects(), ["refuse 1 Unlicensed journaled"]);
}

#[test]
fn an_order_waits_for_the_licence_that_is_on_its_way() {
    let mut test = Test::new();
    test.machine.licence = None;
    test.machine.handle_licence_notice(digest("licence 3"));
    test.order("1 d");
    test.recalled(1, None, Some("d"));
    assert_eq!(test.effects(), ["ask licence", "recall 1"]);

    test.machine.handle_licence(digest("licence 3"), b"licence 3", test.now);

    assert_eq!(test.effects(), ["keep licence 3", "intent 1", "acked 1", "start 1", "running 1", "run 1"]);
}

#[test]
fn the_licence_serial_never_goes_back() {
    let mut test = Test::new();
    test.licence("licence 9");
    assert_eq!(test.effects(), ["ask licence", "keep licence 9"]);

    test.licence("licence 8");

    assert_eq!(test.effects(), ["ask licence"]);
    assert_eq!(test.machine.licence().unwrap().serial, 9);
}

#[test]
fn no_more_run_at_once_than_there_are_slots() {
    let mut test = Test::new();
    for number in 1..=4 {
        test.admitted(number);
    }
    assert_eq!(test.machine.counts(), (2, 2));
    test.effects();

    test.finish(1);

    assert_eq!(test.effects(), ["result 1 Answered", "start 3", "running 3", "run 3"]);
}

#[test]
fn one_too_many_fails_with_advice() {
    let mut test = Test::new();
    for number in 1..=5 {
        test.admitted(number);
    }
    test.effects();

    test.admitted(6);

    let effects = test.effects_with_detail();
    assert_eq!(effects[0], "recall 6");
    assert!(
        effects[1].starts_with("refuse 6 Unspecified journaled")
            && effects[1].contains("issue it again later"),
        "{effects:?}"
    );
}

#[test]
fn what_waited_beyond_its_window_expires() {
    let mut test = Test::new();
    for number in 1..=3 {
        test.admitted(number);
    }
    test.effects();

    test.now.wall_ms += 3_600_000;
    test.finish(1);

    assert_eq!(test.effects(), ["result 1 Answered", "result 3 Expired"]);
}

#[test]
fn what_waited_is_verified_again_when_it_starts() {
    let mut test = Test::new();
    for number in 1..=3 {
        test.admitted(number);
    }
    test.effects();

    test.now.instant += Duration::from_secs(2);
    test.machine.admission.is_revoked = true;
    test.finish(1);

    assert_eq!(test.effects(), ["result 1 Answered", "result 3 Refused"]);
}

#[test]
fn a_resource_that_cannot_be_had_is_a_refusal_and_nothing_starts() {
    let mut test = Test::new();
    test.order("1 with-resource");
    test.recalled(1, None, Some("with-resource"));
    assert_eq!(test.effects(), ["recall 1", "intent 1", "acked 1", "fetch 1"]);

    test.machine.handle_fetched(id(1), Err("other bytes".to_owned()), test.now);

    let effects = test.effects_with_detail();
    assert_eq!(effects, ["result 1 Refused: other bytes"]);
}

#[test]
fn resources_come_before_the_start() {
    let mut test = Test::new();
    test.order("1 with-resource");
    test.recalled(1, None, Some("with-resource"));
    test.effects();

    test.machine.handle_fetched(id(1), Ok(vec![("resource_a".to_owned(), "/a".into())]), test.now);

    assert_eq!(test.effects(), ["start 1", "running 1", "run 1"]);
}

#[test]
fn what_was_downloaded_for_is_verified_again_before_it_starts() {
    let mut test = Test::new();
    test.order("1 with-resource");
    test.recalled(1, None, Some("with-resource"));
    test.effects();

    test.machine.admission.is_revoked = true;
    test.machine.handle_fetched(id(1), Ok(vec![("resource_a".to_owned(), "/a".into())]), test.now);

    assert_eq!(test.effects(), ["result 1 Refused"]);
}

#[test]
fn a_download_that_outlasts_the_window_expires() {
    let mut test = Test::new();
    test.order("1 with-resource");
    test.recalled(1, None, Some("with-resource"));
    test.effects();

    test.now.wall_ms += 60_000;
    test.machine.handle_fetched(id(1), Err("its window ended".to_owned()), test.now);

    assert_eq!(test.effects(), ["result 1 Expired"]);
}

#[test]
fn a_task_that_breaks_fails_its_instruction_and_frees_its_slot() {
    let mut test = Test::new();
    for number in 1..=3 {
        test.admitted(number);
    }
    test.effects();

    test.machine.handle_broken(id(1), "broke", test.now);

    assert_eq!(test.effects(), ["result 1 Failed", "start 3", "running 3", "run 3"]);
}

#[test]
fn a_recovered_intent_starts_once() {
    let mut test = Test::new();
    let entry = Entry {
        instruction: id(1),
        order_digest: digest("1 d"),
        definition: digest("d"),
        expires_at_ms: NOW_MS + 60_000,
        envelope: b"1 d".to_vec(),
        proof: None,
    };

    test.machine.handle_recovered(entry, Some(b"d".to_vec()), test.now);

    assert_eq!(test.effects(), ["start 1", "running 1", "run 1"]);
}

#[test]
fn a_lost_session_forgets_what_was_not_acked() {
    let mut test = Test::new();
    test.order("1 d");
    test.recalled(1, None, None);
    test.effects();

    test.machine.handle_disconnected();
    test.machine.handle_definition(digest("d"), b"d", test.now);

    assert_eq!(test.effects(), Vec::<String>::new());
    assert_eq!(test.machine.poll_timeout(), None);
}

#[test]
fn a_stopping_client_starts_nothing() {
    let mut test = Test::new();
    for number in 1..=3 {
        test.admitted(number);
    }
    test.effects();

    test.machine.handle_stopping();
    test.finish(1);

    assert_eq!(test.effects(), ["result 1 Answered"]);
}

#[test]
fn rows_that_do_not_fit_are_left_out_and_told() {
    let plan = plan("Acme-A");
    let rows = vec![vec![SqlValue::Text("x".repeat(60_000))]; 100];

    let result = outcome::finished(id(1), &plan, Ok(answer(rows)), NOW_MS, NOW_MS);

    assert!(result.truncated && !result.rows.is_empty());
    assert!(prost::Message::encoded_len(&result) <= muster_proto::limits::RESULT_BYTES_MAX);
}

#[test]
fn other_columns_than_the_declared_ones_are_a_failure() {
    let mut plan = plan("Acme-A");
    plan.columns = Some(vec![PlanColumn {
        name: "b".to_owned(),
        kind: muster_proto::common::v1::ColumnType::Text,
        max_length: None,
    }]);

    let result = outcome::finished(id(1), &plan, Ok(answer(Vec::new())), NOW_MS, NOW_MS);

    assert_eq!(result.state(), TargetState::Failed);
    assert!(result.detail.contains("[\"a\"]") && result.detail.contains("[\"b\"]"), "{}", result.detail);
}

#[test]
fn columns_that_the_wire_refuses_are_a_failure_not_a_stuck_outbox() {
    let mut answer = answer(Vec::new());
    answer.columns.push(answer.columns[0].clone());

    let result = outcome::finished(id(1), &plan("Acme-A"), Ok(answer), NOW_MS, NOW_MS);

    assert_eq!(result.state(), TargetState::Failed, "{}", result.detail);
}

/// An admission without signatures: an order is the text `NUMBER DEFINITION [forged|…]`, and so is what is wrong.
#[derive(Debug, Default)]
struct Spoken {
    is_revoked: bool,
}

impl Admission for Spoken {
    fn open(&self, envelope: &[u8], _now_ms: i64) -> Result<Opened, Refused> {
        let text = std::str::from_utf8(envelope).unwrap();
        let words: Vec<&str> = text.split(' ').collect();
        if words.len() < 2 || words.contains(&"forged") {
            return Err(Refused { refusal: Refusal::BadSignature, detail: "forged".to_owned() });
        }
        Ok(Opened {
            instruction: id(words[0].parse().unwrap()),
            definition: digest(words[1]),
            licence_serial: 3,
            expires_at_ms: NOW_MS + 60_000,
            order: muster_proto::order::v1::Order::default(),
        })
    }

    fn claimed_instruction(&self, envelope: &[u8]) -> Option<InstructionId> {
        let text = std::str::from_utf8(envelope).unwrap();
        text.split(' ').next()?.parse().ok().map(id)
    }

    fn admit(
        &self,
        _opened: &Opened,
        definition: &[u8],
        _licence: &[u8],
        _proof: Option<&InclusionProof>,
        _memory: &Memory,
        _now_ms: i64,
    ) -> Result<Plan, Refused> {
        let mut plan = plan("Acme-A");
        match definition {
            b"wrong-audience" => {
                return Err(Refused { refusal: Refusal::WrongAudience, detail: "not for you".to_owned() });
            }
            b"with-resource" => {
                plan.resources = vec![PlanResource { name: "a".to_owned(), size: 1, root: digest("a") }];
            }
            _ => {}
        }
        if self.is_revoked {
            return Err(Refused { refusal: Refusal::SignerRevoked, detail: "revoked".to_owned() });
        }
        Ok(plan)
    }

    fn licence(&self, envelope: &[u8], _now_ms: i64) -> Result<u64, Refused> {
        Ok(std::str::from_utf8(envelope).unwrap().strip_prefix("licence ").unwrap().parse().unwrap())
    }
}

struct Test {
    machine: Instructions<Spoken>,
    now: Now,
}

impl Test {
    fn new() -> Self {
        let limits = Limits { parallel: 2, queued: 3, document: Duration::from_secs(30) };
        let licence = HeldLicence { envelope: b"licence 3".to_vec(), digest: digest("licence 3"), serial: 3 };
        Self {
            machine: Instructions::new(Spoken::default(), limits, Some(licence), 3, Memory::default()),
            now: Now { instant: Instant::now(), wall_ms: NOW_MS },
        }
    }

    fn order(&mut self, text: &str) {
        self.machine.handle_order(text.as_bytes(), None, self.now);
    }

    fn recalled(&mut self, number: u8, known: Option<(JournalState, Digest)>, definition: Option<&str>) {
        let recalled = known.map(|(state, order_digest)| Recalled { order_digest, state });
        let definition = definition.map(|text| text.as_bytes().to_vec());
        self.machine.handle_recalled(id(number), recalled, definition, self.now);
    }

    fn admitted(&mut self, number: u8) {
        self.order(&format!("{number} d"));
        self.recalled(number, None, Some("d"));
    }

    fn licence(&mut self, text: &str) {
        self.machine.handle_licence_notice(digest(text));
        self.machine.handle_licence(digest(text), text.as_bytes(), self.now);
    }

    fn finish(&mut self, number: u8) {
        self.machine.handle_finished(id(number), Ok(answer(Vec::new())), self.now);
    }

    fn effects(&mut self) -> Vec<String> {
        let cut = |text: String| text.split(": ").next().unwrap_or_default().to_owned();
        self.effects_with_detail().into_iter().map(cut).collect()
    }

    fn effects_with_detail(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.machine.poll_effect()).map(|effect| shown(&effect)).collect()
    }
}

fn shown(effect: &Effect) -> String {
    let n = |instruction: &InstructionId| instruction.as_bytes()[0];
    match effect {
        Effect::Recall { instruction, .. } => format!("recall {}", n(instruction)),
        Effect::AskDefinition { .. } => "ask definition".to_owned(),
        Effect::AskLicence { .. } => "ask licence".to_owned(),
        Effect::KeepDefinition { .. } => "keep definition".to_owned(),
        Effect::KeepLicence { serial, .. } => format!("keep licence {serial}"),
        Effect::RecordIntent { entry, .. } => format!("intent {}", n(&entry.instruction)),
        Effect::SendProgress { instruction, state: TargetState::Acked } => {
            format!("acked {}", n(instruction))
        }
        Effect::SendProgress { instruction, .. } => format!("running {}", n(instruction)),
        Effect::Fetch { instruction, .. } => format!("fetch {}", n(instruction)),
        Effect::RecordStart { instruction, .. } => format!("start {}", n(instruction)),
        Effect::Run { instruction, .. } => format!("run {}", n(instruction)),
        Effect::RecordResult { result } if result.detail.is_empty() => {
            format!("result {} {:?}", result.instruction[0], result.state())
        }
        Effect::RecordResult { result } => {
            format!("result {} {:?}: {}", result.instruction[0], result.state(), result.detail)
        }
        Effect::RecordRefusal { entry, result, .. } => {
            let journaled = if entry.is_some() { " journaled" } else { "" };
            format!("refuse {} {:?}{journaled}: {}", result.instruction[0], result.refusal(), result.detail)
        }
        Effect::ReportUnreadable { .. } => "unreadable".to_owned(),
    }
}

pub(super) fn id(number: u8) -> InstructionId {
    InstructionId::from([number; 16])
}

pub(super) fn digest(text: &str) -> Digest {
    muster_signing::envelope::digest(text.as_bytes())
}

fn answer(rows: Vec<Vec<SqlValue>>) -> Answer {
    let columns = vec![Column { name: "a".to_owned(), kind: ColumnKind::Text }];
    Answer { columns, rows, truncated: false, sandbox_missing: Vec::new() }
}

pub(super) fn plan(name: &str) -> Plan {
    Plan {
        name: name.to_owned(),
        version: semver::Version::new(1, 0, 0),
        steps: vec!["SELECT 1".to_owned()],
        parameters: Vec::new(),
        columns: None,
        resources: Vec::new(),
        run_time: Duration::from_secs(1),
        rows: 10,
        bytes: 1_000,
        sandbox: SandboxProfile::Standard,
    }
}
