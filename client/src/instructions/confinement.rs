//! Whether this machine has every layer of the sandbox: a definition that demands all of them is refused before it counts as started.

use std::time::Duration;

use muster_endpoint::{
    Granted, HelperCommand, Query, QueryError, QueryLimits, SandboxProfile, SqlValue, Work, run_until,
};
use tokio_util::sync::CancellationToken;

/// Looking touches nothing but the helper's own start; a machine that is busy beyond this tells it when the instruction runs.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// What is known of the sandbox.
#[derive(Debug, Default)]
pub(crate) struct Confinement {
    /// A helper had every layer in this process's time. One that lacks some is looked at again each time: whoever mends the machine does not have
    /// to start the client again.
    was_whole: bool,
}

impl Confinement {
    /// Returns why the profile cannot be had, as far as that can be known before anything of an instruction runs.
    pub(super) async fn refuses(
        &mut self,
        helper: &HelperCommand,
        sandbox: SandboxProfile,
        stop: &CancellationToken,
    ) -> Option<QueryError> {
        match sandbox {
            SandboxProfile::Standard => return None,
            SandboxProfile::Strict if self.was_whole => return None,
            SandboxProfile::Strict => {}
        }
        let query = Query {
            sql: "SELECT 1".to_owned(),
            parameters: Vec::new(),
            limits: QueryLimits { run_time: LOOK_MAX, rows: 1, bytes: 1_024 },
            sandbox,
            readable: Vec::new(),
            granted: Granted::Tables(Vec::new()),
            then: Vec::new(),
        };
        let mut rows: Vec<Vec<SqlValue>> = Vec::new();
        match run_until(helper, Work::Query(query), &mut rows, stop.cancelled()).await {
            Ok(_) => {
                self.was_whole = true;
                None
            }
            Err(why @ QueryError::Sandbox { .. }) => Some(why),
            // Whatever else keeps a helper from answering is told of the instruction itself.
            Err(
                QueryError::Sql { .. }
                | QueryError::Deadline { .. }
                | QueryError::Crashed { .. }
                | QueryError::TooLarge { .. }
                | QueryError::NotGranted { .. }
                | QueryError::Script { .. }
                | QueryError::Unconfined { .. }
                | QueryError::Stopped
                | QueryError::Spawn { .. },
            ) => None,
        }
    }
}
