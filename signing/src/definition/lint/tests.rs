use proptest::prelude::*;
use serde::Deserialize;

use crate::definition::{Definition, FINDINGS_MAX, Finding, Rule, Severity};

/// What lint says, case by case; the JSON Schema is judged by the same cases.
const GOLDEN: &str = include_str!("golden.toml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    base: String,
    case: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    rule: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: String,
    #[serde(default)]
    whole: bool,
    #[serde(default)]
    fill: usize,
    #[expect(dead_code, reason = "the schema's test reads it")]
    schema: String,
    findings: Vec<String>,
}

impl Case {
    fn text(&self, base: &str) -> String {
        if self.whole {
            return self.to.clone();
        }
        assert!(base.contains(&self.from), "{}", self.from);
        match self.fill {
            0 => base.replacen(&self.from, &self.to, 1),
            fill => base.replacen(&self.from, &format!("# {}\n{}", "a".repeat(fill), self.from), 1),
        }
    }
}

fn golden() -> Golden {
    toml::from_str(GOLDEN).unwrap()
}

fn said(finding: &Finding) -> String {
    let (line, column, rule) = (finding.line(), finding.column(), finding.rule());
    format!("{line}:{column} {}[{}] {}", finding.severity().name(), rule.name(), finding.problem())
}

#[test]
fn each_mistake_is_told_with_its_place_and_what_to_do() {
    let golden = golden();
    let mut wrong = Vec::new();
    for case in &golden.case {
        let findings = Definition::lint(&case.text(&golden.base));

        let found: Vec<String> = findings.iter().map(said).collect();
        let is_told = findings.iter().any(|finding| finding.rule().name() == case.rule);
        if found != case.findings || !is_told {
            wrong.push(format!("{}, {:?}: {found:#?}", case.rule, case.to));
        }
        for finding in &findings {
            assert!(!finding.found().is_empty());
            assert!(!(finding.wanted().is_empty() && finding.fix().is_empty()), "{finding}: and now?");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_text_that_people_are_shown_has_no_hidden_character_however_it_is_written() {
    let base = golden().base;
    let places = [
        ("Which %what%", "Which {} %what%"),
        ("\"what\"\ntype", "\"what{}\"\ntype"),
        ("'[a-z]+'", "\"[a-z{}]+\""),
        ("\"cats\"", "\"cats{}\"\nhint = \"none\""),
        ("default = \"cats\"", "default = \"cats\"\nhint = \"{}\""),
        ("pattern = '[a-z]+'\nmax_length = 20", "values = [\"cats\", \"a{}\"]"),
        ("SELECT name, size", "SELECT name, '{}', size"),
        ("\"bytes\"\ntype", "\"bytes{}\"\ntype"),
        ("count(*)", "count(*) /* {} */"),
        ("[\"linux\"]", "[\"linux{}\"]"),
        ("[limits]", "[limits]\n\"{}\" = 1"),
    ];
    for (from, to) in places {
        for hidden in
            ['\u{1b}', '\u{9b}', '\u{ad}', '\u{200b}', '\u{2028}', '\u{202e}', '\u{feff}', '\u{e0041}']
        {
            let number = u32::from(hidden);
            for written in [hidden.to_string(), format!("\\U{number:08x}"), format!("\\U{number:08X}")] {
                let text = base.replacen(from, &to.replace("{}", &written), 1);
                assert_ne!(text, base, "{from}");
                let line = text.lines().position(|line| line.contains(&written)).unwrap() + 1;

                let findings = Definition::lint(&text);

                let told = findings.iter().find(|finding| finding.rule() == Rule::HiddenOrder);
                assert_eq!(told.map(Finding::line), Some(line), "{to}: {written:?}: {findings:?}");
                assert!(Definition::parse(&text).is_err(), "{to}: {written:?}");
            }
        }
    }
    for (from, to) in
        [("Which %what% ", "Which\\n\\t%what% \u{2764}\u{fe0f} "), ("SELECT name", "SELECT\tname")]
    {
        Definition::parse(&base.replacen(from, to, 1)).unwrap();
    }
    Definition::parse(&base.replace('\n', "\r\n")).unwrap();
}

#[test]
fn every_rule_has_its_case_and_its_line_in_the_table() {
    let golden = golden();
    let table = include_str!("../../../definitions/README.md");
    for rule in Rule::ALL {
        let row = format!("| `{}` | {} |", rule.name(), rule.severity().name());

        assert!(golden.case.iter().any(|case| case.rule == rule.name()), "no case of {}", rule.name());
        assert!(table.contains(&row), "no row of {} in signing/definitions/README.md", rule.name());
    }
}

#[test]
fn a_good_text_has_no_finding() {
    let base = golden().base;

    assert_eq!(Definition::lint(&base), []);
    Definition::parse(&base).unwrap();
}

#[test]
fn one_mistake_does_not_hide_the_next() {
    let base = golden().base;
    let text = [
        ("Acme-Test-Files", "Acme"),
        ("1.0.0", "1"),
        ("[a-z]+", "[a-z"),
        ("max_length = 20", "max_lenght = 20"),
        ("default = 3", "default = 30"),
        ("size = 5", "size = true"),
        (":days AND", ":dayz AND"),
        ("type = \"text\"", "type = \"string\""),
        ("10s", "10"),
        ("rows = 100", "rows = 0"),
        ("64 KiB", "17 MiB"),
        ("\"7d\"", "\"8d\""),
    ]
    .into_iter()
    .fold(base, |text, (from, to)| text.replacen(from, to, 1));

    let found = Definition::lint(&text);

    let errors = found.iter().filter(|finding| finding.severity() == Severity::Error);
    let told: Vec<String> = errors
        .map(|finding| format!("{}:{} {}", finding.line(), finding.column(), finding.rule().name()))
        .collect();
    assert_eq!(
        told,
        [
            "1:8 name-invalid",
            "2:11 version-invalid",
            "10:11 pattern-invalid",
            "11:1 unknown-key",
            "19:11 default-unfit",
            "23:8 wrong-type",
            "29:42 query-unbound-name",
            "34:8 unknown-value",
            "45:12 duration-invalid",
            "46:8 limit-out-of-range",
            "47:9 limit-out-of-range",
            "50:46 gather-beyond-order",
        ]
    );
    assert!(found.iter().any(|finding| finding.rule() == Rule::ParameterUnused), "{found:?}");
}

#[test]
fn findings_are_bounded() {
    let keys: String = (0..1_000).map(|number| format!("k{number} = 1\n")).collect();

    let found = Definition::lint(&(keys + &golden().base));

    assert_eq!(found.len(), FINDINGS_MAX);
}

#[test]
fn lint_and_sign_agree_on_what_is_an_error() {
    let golden = golden();
    for case in &golden.case {
        agree(&case.text(&golden.base));
    }
}

#[test]
fn the_platforms_definitions_have_no_finding() {
    for text in [
        include_str!("../../../definitions/Muster-Certificates-Expiring.toml"),
        include_str!("../../../definitions/Muster-Core-Query.toml"),
        include_str!("../../../definitions/Muster-Disk-Full.toml"),
        include_str!("../../../definitions/Muster-File-Hash.toml"),
        include_str!("../../../definitions/Muster-Os-Version.toml"),
        include_str!("../../../definitions/Muster-Package-Version.toml"),
        include_str!("../../../definitions/Muster-Port-Listeners.toml"),
        include_str!("../../../definitions/Muster-Process-Top.toml"),
        include_str!("../../../definitions/Muster-Service-Restart.toml"),
        include_str!("../../../definitions/Muster-Service-State.toml"),
    ] {
        let found: Vec<String> = Definition::lint(text).iter().map(said).collect();

        assert_eq!(found, Vec::<String>::new(), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_linted_as_it_is_parsed(from in 0..1_200_usize, length in 0..60_usize, with in ".{0,20}") {
        let base = golden().base;
        if let (Some(before), Some(after)) = (base.get(..from), base.get((from + length).min(base.len())..)) {
            agree(&format!("{before}{with}{after}"));
        }
    }

    #[test]
    fn lines_in_any_order_are_linted_as_they_are_parsed(picked in proptest::collection::vec(0..56_usize, 0..60)) {
        let base = golden().base;
        let lines: Vec<&str> = base.lines().collect();
        let text: String = picked.iter().filter_map(|at| lines.get(*at)).map(|line| format!("{line}\n")).collect();
        agree(&text);
    }
}

#[track_caller]
fn agree(text: &str) {
    let parsed = Definition::parse(text);
    let found = Definition::lint(text);
    let has_error = found.iter().any(|finding| finding.severity() == Severity::Error);

    assert_eq!(parsed.is_err(), has_error, "{text}\n{parsed:?}\n{found:#?}");
}
