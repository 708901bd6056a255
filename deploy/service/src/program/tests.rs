use std::time::Duration;

use serde::Deserialize;

use super::*;
use crate::config::Invalid;
use crate::shutdown::DrainOutcome;

#[test]
fn the_configuration_is_the_one_named_else_the_default() {
    let named = sources::<Example>(&ConfigFiles { config: Some("/tmp/own.toml".into()), conf_d: None });
    let default = sources::<Example>(&ConfigFiles::default());

    assert_eq!(named.file.as_deref(), Some(Path::new("/tmp/own.toml")));
    assert_eq!(named.conf_d.as_deref(), Some(Path::new("/tmp/example.d")));
    assert_eq!(default.file.as_deref(), Some(Path::new("/nowhere/muster/example.toml")));
    assert_eq!(default.conf_d.as_deref(), Some(Path::new("/nowhere/muster/example.d")));
}

#[test]
fn an_absent_configuration_says_which_path_and_what_to_do() {
    let named = ConfigFiles { config: Some("/nowhere/own.toml".into()), conf_d: None };

    let error = load::<Example>(&named).unwrap_err().to_string();
    check_named(
        &error,
        &["/nowhere/own.toml", "--config FILE", "/nowhere/muster/example.toml", "deploy/config/example.toml"],
    );

    let error = load::<Example>(&ConfigFiles::default()).unwrap_err().to_string();
    check_named(
        &error,
        &["/nowhere/muster/example.toml", "--config FILE", "EXAMPLE_CONFIG", "deploy/config/example.toml"],
    );
    assert!(!error.contains("os error"), "{error}");
}

#[test]
fn every_command_tells_the_default_in_its_help() {
    let command = arguments::command::<Example, arguments::Arguments>();

    for path in [&["run"][..], &["config", "check"], &["config", "explain"]] {
        let mut inner = &command;
        for name in path {
            inner = inner.find_subcommand(name).unwrap();
        }
        let help = inner.clone().render_help().to_string();
        check_named(&help, &["EXAMPLE_CONFIG", "/nowhere/muster/example.toml"]);
    }
    command.debug_assert();
}

#[test]
fn a_configuration_is_checked_by_the_same_argument_that_runs_it() {
    let read = |words: &[&str]| {
        let matches = arguments::command::<Example, arguments::Arguments>().try_get_matches_from(words)?;
        let arguments = <arguments::Arguments as clap::FromArgMatches>::from_arg_matches(&matches)?;
        let Standard::Config(ConfigCommand::Check { file, config, .. }) = arguments.command else {
            panic!("{words:?}")
        };
        Ok::<_, clap::Error>(file.or(config))
    };

    let named = Some(PathBuf::from("own.toml"));
    assert_eq!(read(&["example", "config", "check", "own.toml"]).unwrap(), named);
    assert_eq!(read(&["example", "config", "check", "--config", "own.toml"]).unwrap(), named);
    assert!(read(&["example", "config", "check", "a.toml", "--config", "b.toml"]).is_err());
}

#[test]
fn a_problem_with_a_file_names_the_key_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("example.toml");
    std::fs::write(&file, "\ndata_dir = '/srv/x'\nkey = '/srv/x/tls.key'\n").unwrap();
    let sources = sources::<Example>(&ConfigFiles { config: Some(file), conf_d: None });

    let inspected = config::inspect::<Config>("example", &sources);

    let told = inspected.blame_file("/srv/x/tls.key: no such file".to_owned()).unwrap().to_string();
    let again = inspected.blame_file("`key`: /srv/x/tls.key: no such file".to_owned()).unwrap().to_string();
    check_named(&told, &["example.toml:3: key `key`: /srv/x/tls.key: no such file"]);
    assert_eq!(told, again);
}

#[test]
fn a_file_of_a_key_that_cannot_be_read_is_not_blamed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("example.toml");
    std::fs::write(&file, "key = 5\n").unwrap();
    let sources = sources::<Example>(&ConfigFiles { config: Some(file), conf_d: None });

    let inspected = config::inspect::<Config>("example", &sources);

    assert_eq!(inspected.mistakes.len(), 1);
    assert!(inspected.blame_file("/etc/example.key: no such file".to_owned()).is_none());
}

#[test]
fn a_service_ends_when_its_shutdown_is_triggered() {
    let start = |shutdown: Shutdown| async move {
        let token = shutdown.token();
        shutdown.spawn("one", async move { token.cancelled().await });
        shutdown.trigger();
        Ok(())
    };
    let wait = |(), shutdown: Shutdown| async move {
        shutdown.cancelled().await;
        assert_eq!(shutdown.drain(Duration::from_secs(20)).await, DrainOutcome::Drained);
        Ok(())
    };

    serve("example", NonZeroUsize::MIN, start, wait).unwrap();
}

#[test]
fn a_service_that_does_not_start_keeps_its_code() {
    let start = |_shutdown| async {
        Err::<(), _>(Ended::new(exit::UNAVAILABLE, &std::io::Error::other("port 4000 is in use")))
    };

    let ended = serve("example", NonZeroUsize::MIN, start, |(), _| async { Ok(()) }).unwrap_err();

    assert_eq!((ended.code(), ended.to_string().as_str()), (exit::UNAVAILABLE, "port 4000 is in use"));
}

#[track_caller]
fn check_named(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
}

struct Example;

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    data_dir: PathBuf,
    key: PathBuf,
    log: LogConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self { data_dir: "/srv".into(), key: "/etc/example.key".into(), log: LogConfig::default() }
    }
}

impl Validate for Config {
    fn findings(&self) -> Vec<Invalid> {
        Vec::new()
    }
}

impl Program for Example {
    type Config = Config;

    const NAME: &'static str = "example";
    const ABOUT: &'static str = "An example";
    const VERSION: &'static str = "1.2.3";
    const ENV_PREFIX: &'static str = "EXAMPLE_";
    const DEFAULT_CONFIG: &'static str = "/nowhere/muster/example.toml";

    fn log(config: &Config) -> &LogConfig {
        &config.log
    }

    fn check_files(_config: &Config) -> Vec<String> {
        Vec::new()
    }

    fn run(_config: Config) -> Result<(), Ended> {
        Ok(())
    }
}
