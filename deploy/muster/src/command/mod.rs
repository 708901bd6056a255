//! Does what was typed. One module a noun.

mod aggregate;
mod client;
mod ctx;
mod definition;
mod doctor;
mod event;
pub(crate) mod export;
mod instruction;
mod issue;
mod licence;
mod pack;
mod pki;
mod policy;
mod resource;

pub(crate) use self::client::devices;
use crate::cli::{Cli, Command, Pack};
use crate::dev;
use crate::exit::{Exit, Failure};
use crate::home::{Context, Home};
use crate::operator::Operator;

/// Does what was typed.
pub(crate) fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    let context = cli.context.as_deref();
    match cli.command {
        // These two have runtimes and threads of their own.
        Command::SqlHelper => return Ok(dev::sql_helper()),
        Command::DevClient { config } => return dev::client(&config),
        Command::Dev(arguments) => return dev::run(cli.home, &arguments),
        Command::Ctx(verb) => return ctx::run(&Home::locate(cli.home)?, verb),
        Command::Pki(verb) => return pki::run(&Home::locate(cli.home)?, verb),
        Command::Ask(_)
        | Command::Run(_)
        | Command::Instruction(_)
        | Command::Client(_)
        | Command::Definition(_)
        | Command::Pack(_)
        | Command::Licence(_)
        | Command::Policy(_)
        | Command::Resource(_)
        | Command::Event(_)
        | Command::Export(_)
        | Command::Doctor(_) => {}
    }
    let home = Home::locate(cli.home)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Refused, format!("start a runtime: {error}")))?;
    runtime.block_on(Box::pin(remote(&home, context, cli.command)))
}

/// The verbs that talk to a Switch or a Background Channel.
async fn remote(home: &Home, context: Option<&str>, command: Command) -> Result<Exit, Failure> {
    if let Command::Doctor(arguments) = &command {
        return doctor::run(home, context, arguments).await;
    }
    // An exchange can be looked through without a Switch.
    if let Command::Pack(Pack::Search(arguments)) = &command {
        return pack::search(home, context, arguments).await;
    }
    let context = home.context(context)?;
    if let Command::Resource(verb) = command {
        return resource::run(home, &context, verb).await;
    }
    if let Command::Pack(Pack::Import(arguments)) = command {
        return pack::import(home, context, &arguments).await;
    }
    if let Command::Ask(ask) = &command {
        issue::check_sql(&ask.sql)?;
    }
    let operator = connect(home, &context).await?;
    match command {
        Command::Ask(arguments) => issue::ask(&operator, home, arguments).await,
        Command::Run(arguments) => issue::run(&operator, home, arguments).await,
        Command::Instruction(verb) => instruction::run(&operator, home, verb).await,
        Command::Client(verb) => client::run(&operator, verb).await,
        Command::Definition(verb) => definition::run(&operator, home, verb).await,
        Command::Licence(verb) => licence::run(&operator, home, verb).await,
        Command::Policy(verb) => policy::run(&operator, home, verb).await,
        Command::Event(verb) => event::run(&operator, verb).await,
        Command::Export(_) => export::run(&operator).await,
        Command::Dev(_)
        | Command::Ctx(_)
        | Command::Pki(_)
        | Command::Doctor(_)
        | Command::Resource(_)
        | Command::Pack(_)
        | Command::DevClient { .. }
        | Command::SqlHelper => Ok(Exit::Ok),
    }
}

async fn connect(home: &Home, context: &Context) -> Result<Operator, Failure> {
    Operator::connect(home, context).await
}
