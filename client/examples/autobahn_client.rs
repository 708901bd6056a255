//! What the Autobahn test suite talks to when it tests the client's WebSocket: see `deploy/ci/autobahn`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server] = &arguments[..] else { return Err("usage: autobahn_client ADDRESS".into()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cases = runtime.block_on(muster_client::autobahn::run(server, "muster-client"))?;
    if cases == 0 {
        return Err("the suite has no cases".into());
    }
    Ok(())
}
