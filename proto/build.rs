//! Compiles the `.proto` files without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "muster/common/v1/common.proto",
        "muster/session/v1/session.proto",
        "muster/session/v1/background.proto",
        "muster/order/v1/order.proto",
        "muster/relay/v1/relay.proto",
        "muster/operator/v1/instruction.proto",
        "muster/operator/v1/fleet.proto",
        "muster/operator/v1/policy.proto",
    ];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    prost_build::Config::new()
        .bytes(["OrderDelivery.envelope", "Document.envelope"])
        .compile_fds(descriptors)?;
    Ok(())
}
