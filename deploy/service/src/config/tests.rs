use std::fs;
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;

use super::*;

#[test]
fn the_defaults_stand_alone() {
    let loaded = Case::new().load().unwrap();

    assert_eq!(loaded.config(), &Config::default());
    assert!(loaded.explain().settings().iter().all(|setting| setting.origin == Origin::Default));
}

#[test]
fn each_layer_wins_over_the_one_before() {
    let case = Case::new()
        .file("tenant = 'file'\nlisten = 'file'\n[limits]\nrows = 1\nsessions_max = 7\n")
        .conf_d("20-b.toml", "listen = 'second'\n[limits]\nrows = 3\n")
        .conf_d("10-a.toml", "listen = 'first'\n[limits]\nrows = 2\n")
        .env("MUSTER_TEST_LIMITS__ROWS", "4")
        .flag("limits.rows", "5");

    let loaded = case.load().unwrap();

    assert_eq!(loaded.config().tenant, "file");
    assert_eq!(loaded.config().listen, "second");
    assert_eq!(loaded.config().limits, Limits { rows: 5, sessions_max: 7, ..Limits::default() });
}

#[test]
fn explains_which_layer_set_what() {
    let case =
        Case::new().file("\nlisten = 'x'\n").env("MUSTER_TEST_TENANT", "acme").flag("limits.rows", "9");

    let text = case.load().unwrap().explain().to_string();

    for expected in
        ["test.toml:2", "environment variable MUSTER_TEST_TENANT", "command line (limits.rows)", "default"]
    {
        assert!(text.contains(expected), "{expected} in {text}");
    }
}

#[test]
fn an_unknown_key_names_file_line_and_the_nearest() {
    let error =
        Case::new().file("tenant = 'a'\n\n[limits]\nsesions_max = 3\n").load().unwrap_err().to_string();

    assert!(error.contains("test.toml:4: unknown key `limits.sesions_max`"), "{error}");
    assert!(error.contains("did you mean `limits.sessions_max`?"), "{error}");
}

#[test]
fn a_key_in_the_wrong_table_names_the_right_one() {
    let error = Case::new().file("sessions_max = 3\n").load().unwrap_err().to_string();

    assert!(error.contains("did you mean `limits.sessions_max`?"), "{error}");
}

#[test]
fn an_unknown_key_like_no_other_lists_the_known() {
    let error = Case::new().file("[limits]\nxyzzy = 3\n").load().unwrap_err().to_string();

    assert!(error.contains("known here: limits.rows, limits.sessions_max"), "{error}");
}

#[test]
fn unknown_variables_and_flags_are_refused_by_name() {
    let variable = Case::new().env("MUSTER_TEST_LISTN", "x").load().unwrap_err().to_string();
    let flag = Case::new().flag("limits.row.deep", "x").load().unwrap_err().to_string();

    assert!(
        variable.contains("MUSTER_TEST_LISTN: unknown key `listn`; did you mean `listen`?"),
        "{variable}"
    );
    assert!(flag.contains("unknown key `limits.row`; did you mean `limits.rows`?"), "{flag}");
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_of_that_name_are_ignored_and_mistyped_keys_are_not() {
    let loaded = Case::new()
        .env("MUSTER_TEST_PORT", "tcp://10.96.0.7:4000")
        .env("MUSTER_TEST_SERVICE_HOST", "10.96.0.7")
        .env("MUSTER_TEST_SERVICE_PORT", "4000")
        .env("MUSTER_TEST_PORT_4000_TCP_ADDR", "10.96.0.7")
        .env("MUSTER_TEST_TENANT", "acme")
        .load()
        .unwrap();
    let mistyped = Case::new().env("MUSTER_TEST_PORT", "4000").load().unwrap_err().to_string();

    assert_eq!(loaded.origin("tenant").to_string(), "environment variable MUSTER_TEST_TENANT");
    assert!(mistyped.contains("MUSTER_TEST_PORT: unknown key `port`"), "{mistyped}");
}

#[test]
fn a_key_ignored_by_a_lenient_struct_is_still_refused() {
    let error = Case::new().file("[lenient]\nnmae = 'x'\n").load().unwrap_err().to_string();

    assert!(
        error.contains("test.toml:2: unknown key `lenient.nmae`; did you mean `lenient.name`?"),
        "{error}"
    );
}

#[test]
fn a_wrong_type_names_line_and_key() {
    let error = Case::new().file("[limits]\n\nrows = 'many'\n").load().unwrap_err().to_string();

    assert!(error.contains("test.toml:3: key `limits.rows`: invalid type: string \"many\""), "{error}");
}

#[test]
fn a_duration_without_a_unit_says_what_is_wanted() {
    let error = Case::new().file("[limits]\nping_interval = 10\n").load().unwrap_err().to_string();

    assert!(error.contains("test.toml:2: key `limits.ping_interval`"), "{error}");
    assert!(error.contains("a duration with its unit"), "{error}");
}

#[test]
fn broken_toml_names_the_line() {
    let error = Case::new().file("tenant = 'a'\nlisten = \n").load().unwrap_err().to_string();

    assert!(error.contains("test.toml:2: not valid TOML"), "{error}");
}

#[test]
fn a_value_that_fails_validation_names_who_set_it() {
    let file = Case::new().file("[limits]\nrows = 0\n").load().unwrap_err().to_string();
    let variable = Case::new().env("MUSTER_TEST_LIMITS__ROWS", "0").load().unwrap_err().to_string();

    assert!(file.contains("test.toml:2: key `limits.rows`: got 0"), "{file}");
    assert!(variable.contains("variable MUSTER_TEST_LIMITS__ROWS: key `limits.rows`: got 0"), "{variable}");
}

#[test]
fn a_variable_may_hold_digits_where_text_is_wanted_and_a_comma_list() {
    let case = Case::new()
        .env("MUSTER_TEST_TENANT", "123")
        .env("MUSTER_TEST_CRLS", "/a, /b")
        .env("MUSTER_TEST_LIMITS__FRAME_BYTES_MAX", "2 MiB")
        .env("MUSTER_TEST_CONFIG", "/not/a/key");

    let config = case.load().unwrap().into_config();

    assert_eq!(config.tenant, "123");
    assert_eq!(config.crls, ["/a", "/b"]);
    assert_eq!(config.limits.frame_bytes_max, 2 << 20);
}

#[test]
fn a_key_without_a_default_can_be_set() {
    let config = Case::new().file("certificate = '/etc/x.pem'\n").load().unwrap().into_config();

    assert_eq!(config.certificate.as_deref(), Some("/etc/x.pem"));
}

#[test]
fn a_named_file_that_is_absent_is_an_error() {
    let sources = Sources { file: Some("/does/not/exist.toml".into()), ..Sources::default() };

    let error = load_with::<Config>("test", &sources, []).unwrap_err().to_string();

    assert!(error.starts_with("/does/not/exist.toml: "), "{error}");
}

#[test]
fn an_absent_file_says_what_to_do() {
    let sources = Sources {
        file: Some("/does/not/exist.toml".into()),
        hint: "; name one with --config FILE".into(),
        ..Sources::default()
    };

    let error = load_with::<Config>("test", &sources, []).unwrap_err().to_string();

    assert_eq!(error, "/does/not/exist.toml: there is no such file; name one with --config FILE");
}

#[test]
fn a_file_without_an_end_is_refused() {
    let sources = Sources { file: Some("/dev/zero".into()), ..Sources::default() };

    let error = load_with::<Config>("test", &sources, []).unwrap_err().to_string();

    assert!(error.contains("/dev/zero: more than 1048576 bytes"), "{error}");
}

#[test]
fn every_mistake_is_told_with_its_line_and_key() {
    let case = Case::new()
        .file("lissten = 'x'\ntenant = 5\ncrls = [1, '/b', 2]\n[limits]\nrows = 0\nping_interval = 'soon'\nsesions_max = 1\n[lenient]\nnmae = 'x'\n")
        .conf_d("10.toml", "tenat = 'x'\n")
        .env("MUSTER_TEST_LIMITS__FRAME_BYTES_MAX", "lots");

    let told = told(&case);

    check_told(
        &told,
        &[
            "test.toml:1: unknown key `lissten`; did you mean `listen`?",
            "test.toml:2: key `tenant`: invalid type: integer `5`, expected a string",
            "test.toml:3: key `crls`: invalid type: integer `1`",
            "test.toml:3: key `crls`: invalid type: integer `2`",
            "test.toml:5: key `limits.rows`: got 0",
            "test.toml:6: key `limits.ping_interval`",
            "test.toml:7: unknown key `limits.sesions_max`",
            "test.toml:9: unknown key `lenient.nmae`",
            "10.toml:1: unknown key `tenat`; did you mean `tenant`?",
            "variable MUSTER_TEST_LIMITS__FRAME_BYTES_MAX: key `limits.frame_bytes_max`",
        ],
    );
}

#[test]
fn every_member_of_a_list_of_tables_is_looked_at() {
    let case = Case::new().file(
        "[[grant]]\nname = 'a'\nrole = 'wizard'\n[[grant]]\nname = 'b'\n[[grant]]\nname = 3\nrole = 'reader'\n",
    );

    let told = told(&case);

    check_told(
        &told,
        &[
            "test.toml:3: key `grant.role`: unknown variant `wizard`",
            "test.toml:4: key `grant`: missing field `role`",
            "test.toml:7: key `grant.name`: invalid type: integer `3`",
        ],
    );
}

#[test]
fn a_contradiction_with_a_key_that_cannot_be_read_is_not_told() {
    let wrong = Case::new().file("[limits]\nsessions_max = 'many'\nrows = 500\n");
    let right = Case::new().file("[limits]\nsessions_max = 300\nrows = 500\n");

    check_told(&told(&wrong), &["test.toml:2: key `limits.sessions_max`"]);
    check_told(&told(&right), &["test.toml:3: key `limits.rows`: got 500"]);
}

#[test]
fn a_contradiction_with_a_default_stands_at_the_key_that_was_set() {
    let case = Case::new().file("\n[limits]\nsessions_max = 3\n");

    check_told(&told(&case), &["test.toml:3: key `limits.rows`: got 10, wanted at most sessions_max"]);
}

#[test]
fn every_line_that_is_no_toml_is_told_and_nothing_is_said_of_values() {
    let case = Case::new().file("tenant = \n[limits]\nrows = 0\nping_interval = = 3\n");

    let told = told(&case);

    assert!(told.iter().any(|line| line.contains("test.toml:1: not valid TOML")), "{told:?}");
    assert!(told.iter().any(|line| line.contains("test.toml:4: not valid TOML")), "{told:?}");
    assert!(!told.iter().any(|line| line.contains("limits.rows")), "{told:?}");
}

#[test]
fn endless_mistakes_are_cut_short() {
    let text: String = (0..200).map(|number| format!("key{number} = 1\n")).collect();

    let told = told(&Case::new().file(&text));

    assert_eq!(told.len(), MISTAKES_MAX + 1);
    assert!(told.last().unwrap().contains("and more"), "{told:?}");
}

fn told(case: &Case) -> Vec<String> {
    case.load().unwrap_err().to_string().lines().map(str::to_owned).collect()
}

/// Expects one line for each text, in any order, and no other.
fn check_told(told: &[String], wanted: &[&str]) {
    for text in wanted {
        assert!(told.iter().any(|line| line.contains(text)), "no {text:?} in {told:#?}");
    }
    assert_eq!(told.len(), wanted.len(), "{told:#?}");
}

#[test]
fn the_defaults_print_as_toml_that_reads_back() {
    let text = defaults_as_toml::<Config>().unwrap();

    let config = Case::new().file(&text).load().unwrap().into_config();

    assert!(text.contains("ping_interval = \"1m\""), "{text}");
    assert!(text.contains("frame_bytes_max = \"1 MiB\""), "{text}");
    assert_eq!(config, Config::default());
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    tenant: String,
    listen: String,
    certificate: Option<String>,
    crls: Vec<String>,
    limits: Limits,
    lenient: Lenient,
    grant: Vec<Grant>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Grant {
    name: String,
    role: Role,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    Reader,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Limits {
    rows: u32,
    sessions_max: u32,
    #[serde(with = "human::bytes")]
    frame_bytes_max: usize,
    #[serde(with = "human::duration")]
    ping_interval: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Lenient {
    name: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tenant: "default".into(),
            listen: "127.0.0.1:4000".into(),
            certificate: None,
            crls: Vec::new(),
            limits: Limits::default(),
            lenient: Lenient::default(),
            grant: Vec::new(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows: 10, sessions_max: 100, frame_bytes_max: 1 << 20, ping_interval: Duration::from_secs(60) }
    }
}

impl Validate for Config {
    fn findings(&self) -> Vec<Invalid> {
        let limits = &self.limits;
        let mut found = Vec::new();
        if limits.rows == 0 {
            found.push(Invalid::new("rows", "got 0, wanted at least 1").within("limits"));
        }
        if limits.rows > limits.sessions_max {
            let problem = format!("got {}, wanted at most sessions_max", limits.rows);
            found.push(Invalid::new("rows", problem).against("sessions_max").within("limits"));
        }
        found
    }
}

struct Case {
    folder: TempDir,
    sources: Sources,
    environment: Vec<(String, String)>,
}

impl Case {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let sources = Sources { env_prefix: "MUSTER_TEST_".into(), ..Sources::default() };
        Self { folder, sources, environment: Vec::new() }
    }

    fn file(mut self, text: &str) -> Self {
        let path = self.folder.path().join("test.toml");
        fs::write(&path, text).unwrap();
        self.sources.file = Some(path);
        self
    }

    fn conf_d(mut self, name: &str, text: &str) -> Self {
        let folder = self.folder.path().join("conf.d");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), text).unwrap();
        self.sources.conf_d = Some(folder);
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    fn flag(mut self, key: &str, value: &str) -> Self {
        self.sources.flags.push((key.into(), value.into()));
        self
    }

    fn load(&self) -> Result<Loaded<Config>, ConfigErrors> {
        load_with("test", &self.sources, self.environment.clone())
    }
}
