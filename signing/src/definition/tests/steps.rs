//! What a step may be, to the edge: where an action may stand and what it takes, what a script is, and whose argument may be the query.

use super::*;

const SCRIPT: &str = "script = { interpreter = \"/bin/sh\", text = \"true\" }";

/// [`MINIMAL`] with another step.
fn stepping(step: &str) -> String {
    MINIMAL.replace("query = \"SELECT 1 AS one\"", step)
}

fn resource(name: &str, size: u64) -> String {
    format!("\n[[resource]]\nname = \"{name}\"\nsize = {size}\nroot = \"{}\"\n", "ab".repeat(32))
}

/// What is wrong with a text, each with its rule's name.
#[track_caller]
fn wrong(text: &str) -> Vec<String> {
    let errors =
        Definition::lint(text).into_iter().filter(|finding| finding.rule().severity() == Severity::Error);
    let said: Vec<String> =
        errors.map(|finding| format!("{}: {}", finding.rule().name(), finding.problem())).collect();
    assert_eq!(Definition::parse(text).is_err(), !said.is_empty(), "{said:?}");
    said
}

#[track_caller]
fn is_wrong(text: &str, rule: Rule, words: &str) {
    let said = wrong(text);
    assert!(
        matches!(&said[..], [one] if one.starts_with(rule.name()) && one.contains(words)),
        "{words}: {said:?}"
    );
}

#[test]
fn g8_no_question_has_an_action_and_none_runs_where_nobody_may_change_anything() {
    for action in [
        "do = \"service.restart\", unit = \"ssh\"",
        "do = \"file.put\", resource = \"list\", path = \"/etc/motd\", mode = \"0644\"",
        "do = \"file.remove\", path = \":it\"",
    ] {
        let text = acting(action) + &resource("list", 5);
        assert_eq!(wrong(&text), [""; 0]);
        is_wrong(
            &text.replace("\"action\"", "\"question\""),
            Rule::ActionInQuestion,
            "an action in a question",
        );
        let strict = text.replacen("kind =", "sandbox = \"strict\"\nkind =", 1);
        is_wrong(&strict, Rule::ActionStrict, "strict");
        // Behind a step that may stand there, too.
        let behind = text.replacen("[[step]]", "[[step]]\nquery = \"SELECT 1\"\n\n[[step]]", 1);
        assert_eq!(wrong(&behind), [""; 0]);
        is_wrong(
            &behind.replace("\"action\"", "\"question\""),
            Rule::ActionInQuestion,
            "an action in a question",
        );
    }
    // A script may stand in both.
    assert_eq!(wrong(&stepping(SCRIPT)), [""; 0]);
    assert_eq!(wrong(&stepping(SCRIPT).replace("\"question\"", "\"action\"")), [""; 0]);
}

#[test]
fn an_action_has_the_values_of_its_verb_and_no_others() {
    for (action, rule, words) in [
        ("do = \"service.stop\"", Rule::MissingKey, "no `unit` of `service.stop`"),
        ("do = \"file.remove\"", Rule::MissingKey, "no `path`"),
        ("do = \"file.put\", resource = \"list\", path = \"/a\"", Rule::MissingKey, "no `mode`"),
        ("do = \"file.put\", path = \"/a\", mode = \"0644\"", Rule::MissingKey, "no `resource`"),
        ("do = \"service.stop\", unit = \"ssh\", path = \"/a\"", Rule::UnknownKey, "has no `path`"),
        ("do = \"file.remove\", path = \"/a\", mode = \"0644\"", Rule::UnknownKey, "has no `mode`"),
        ("do = \"service.kill\", unit = \"ssh\"", Rule::StepUnsupported, "service.kill"),
        ("do = \"file.start\", unit = \"ssh\"", Rule::StepUnsupported, "file.start"),
        ("do = \"reboot\"", Rule::StepUnsupported, "reboot"),
        ("do = \"file.remove\", path = \"a\"", Rule::ActionValueInvalid, "\"a\""),
        ("do = \"file.remove\", path = \":its\"", Rule::StepUnknownName, "no parameter is called `its`"),
        (
            "do = \"file.put\", resource = \"lists\", path = \"/a\", mode = \"0644\"",
            Rule::StepUnknownName,
            "no resource is called `lists`",
        ),
    ] {
        is_wrong(&(acting(action) + &resource("list", 5)), rule, words);
    }
}

#[test]
fn the_value_of_an_action_is_a_text_or_one_of_some() {
    let text = acting("do = \"service.stop\", unit = \":it\"");
    let of = |kind: &str| text.replace("name = \"it\"\ntype = \"string\"", &format!("name = \"it\"\n{kind}"));

    assert_eq!(wrong(&of("type = \"enum\"\nvalues = [\"ssh\", \"cron\"]")), [""; 0]);
    is_wrong(&of("type = \"integer\""), Rule::ActionValueInvalid, "the parameter is of type integer");
    // What is wrong with the parameter itself is told there, and once.
    assert_eq!(wrong(&of("type = \"strings\"")).len(), 1);
}

#[test]
fn a_mode_is_four_octal_digits_without_the_rights_of_others() {
    let put = |mode: &str| {
        let action = format!("do = \"file.put\", resource = \"list\", path = \"/a\", mode = \"{mode}\"");
        acting(&action) + &resource("list", 5)
    };
    for mode in ["0000", "0644", "0777"] {
        assert_eq!(wrong(&put(mode)), [""; 0], "{mode}");
    }
    for mode in ["", "0", "644", "00644", "1644", "4755", "7777", "0648", "0-44", "+644", "0x1f", "rw-r"] {
        is_wrong(&put(mode), Rule::ActionValueInvalid, &format!("{mode:?}"));
    }
}

#[test]
fn the_result_of_an_action_is_its_own_where_it_is_the_last_step() {
    let text = acting("do = \"service.stop\", unit = \"ssh\"");
    let other = text.replace("name = \"changed\"", "name = \"was_changed\"");
    is_wrong(&other, Rule::ActionResult, "other columns than those of an action");
    assert_eq!(wrong(&(other + "\n[[step]]\nquery = \"SELECT 1\"\n")), [""; 0]);
}

#[test]
fn an_interpreter_is_a_plain_absolute_path() {
    let by = |interpreter: &str| stepping(&SCRIPT.replace("/bin/sh", interpreter));
    let longest = format!("/{}", "a".repeat(255));
    for good in ["/bin/sh", "/usr/bin/python3.12", "/opt/a_b/c-d/e+f", "/.a/..b/...", &longest] {
        assert_eq!(wrong(&by(good)), [""; 0], "{good}");
    }
    let too_long = format!("{longest}a");
    for bad in [
        "",
        "sh",
        "bin/sh",
        "./sh",
        "/",
        "//bin/sh",
        "/bin//sh",
        "/bin/",
        "/bin/./sh",
        "/bin/../sh",
        "/..",
        "/b n/sh",
        "/ä/sh",
        "/a:b",
        &too_long,
    ] {
        is_wrong(&by(bad), Rule::InterpreterInvalid, "is no interpreter");
    }
}

#[test]
fn a_script_is_one_text_of_a_bounded_size_and_is_given_what_is_declared() {
    let of = |rest: &str| stepping(&SCRIPT.replace("text = \"true\"", rest));
    let most = SCRIPT_BYTES_MAX;

    assert_eq!(wrong(&(of("resource = \"list\"") + &resource("list", most))), [""; 0]);
    is_wrong(&(of("resource = \"list\"") + &resource("list", most + 1)), Rule::ScriptTooLarge, "bytes");
    // Of several, the one that it names.
    let several = resource("other", most + 1) + &resource("list", 5);
    assert_eq!(wrong(&(of("resource = \"list\"") + &several)), [""; 0]);
    is_wrong(
        &(of("resource = \"lists\"") + &several),
        Rule::StepUnknownName,
        "no resource is called `lists`",
    );
    is_wrong(&of("arguments = []"), Rule::StepAmbiguous, "a script without a text");
    let both = of("text = \"true\", resource = \"list\"") + &resource("list", 5);
    is_wrong(&both, Rule::StepAmbiguous, "two texts of one script");
    is_wrong(
        &of("text = \"true\", arguments = [\"lists\"]"),
        Rule::StepUnknownName,
        "nothing is called `lists`",
    );
    let given = |count: usize| of(&format!("text = \"true\", arguments = [{}]", "\"list\",".repeat(count)));
    assert_eq!(wrong(&(given(ITEMS_MAX) + &resource("list", 5))), [""; 0]);
    let too_many = given(ITEMS_MAX + 1) + &resource("list", 5);
    is_wrong(&too_many, Rule::TooManyItems, &format!("{} arguments", ITEMS_MAX + 1));
}

#[test]
fn an_argument_is_the_query_in_the_platforms_definitions_alone_as_a_text_and_by_itself() {
    let stepping = stepping("query_parameter = \"sql\"");
    let (step, _) = stepping.split_once("[[result]]").unwrap();
    let free = format!("{step}[[parameter]]\nname = \"sql\"\ntype = \"string\"\n");
    let ours = free.replace("Acme-Test-All", "Muster-Test-All");

    assert_eq!(wrong(&ours), [""; 0]);
    // Compared exactly.
    for prefix in ["Acme", "MusterX", "muster", "Must"] {
        let text = free.replace("Acme-Test-All", &format!("{prefix}-Test-All"));
        is_wrong(&text, Rule::QueryParameterReserved, "only Muster-…");
    }
    is_wrong(
        &ours.replace("type = \"string\"", "type = \"integer\""),
        Rule::QueryParameterUnknown,
        "of type integer",
    );
    is_wrong(
        &ours.replace("query_parameter = \"sql\"", "query_parameter = \"sq\""),
        Rule::QueryParameterUnknown,
        "no parameter is called `sq`",
    );
    // What is wrong with the parameter itself is told there, and once.
    assert_eq!(wrong(&ours.replace("type = \"string\"", "type = \"strings\"")).len(), 1);
    for beside in ["query = \"SELECT 1\"", SCRIPT] {
        let text = format!("{ours}\n[[step]]\n{beside}\n");
        let said = wrong(&text);
        assert!(
            said.iter().any(|said| said.contains("step-surplus: a query of the argument's beside")),
            "{said:?}"
        );
    }
}

#[test]
fn a_step_is_one_thing() {
    let two = stepping(&format!("query = \"SELECT 1 AS one\"\n{SCRIPT}"));
    is_wrong(&two, Rule::StepAmbiguous, "two things in one step");
    is_wrong(&stepping(""), Rule::StepAmbiguous, "an empty step");
}
